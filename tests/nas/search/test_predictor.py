"""The predictor against textbook formulas and brute force.

Shapes: N architectures, M others, F features.
"""

import warnings

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import kendalltau, norm, rankdata
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, WhiteKernel

from nas.search.predictor import (
    AccuracyPredictor,
    _weighted_tau,
    bootstrap_tau,
    choose_informative,
    cross_validated_tau,
    make_kernel,
)

Floats = NDArray[np.float64]


def codes_of(num: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).integers(0, 3, (num, 5)).astype(np.float64)


def accuracies_of(codes_NF: Floats, seed: int = 0) -> Floats:
    """Better with every feature, and with the first two together; the noise is small."""
    noise_N = np.random.default_rng(seed).normal(0, 0.2, len(codes_NF))
    return 0.9 + 0.01 * (codes_NF.sum(axis=1) + codes_NF[:, 0] * codes_NF[:, 1] + noise_N)


def brute_force_choice(covariance_NN: Floats, num: int) -> list[int]:
    """Every variance computed anew by its definition."""

    def variance(x: int, given: list[int]) -> float:
        if not given:
            return float(covariance_NN[x, x])
        cross = covariance_NN[x, given]
        return float(
            covariance_NN[x, x] - cross @ np.linalg.solve(covariance_NN[np.ix_(given, given)], cross)
        )

    chosen: list[int] = []
    for _ in range(num):
        rest = [x for x in range(len(covariance_NN)) if x not in chosen]
        ratios = [variance(x, chosen) / variance(x, [other for other in rest if other != x]) for x in rest]
        chosen.append(rest[int(np.argmax(ratios))])
    return chosen


def test_the_sample_is_what_brute_force_over_conditional_variances_chooses() -> None:
    # Real numbers: no two ratios are equal.
    codes_NF = np.random.default_rng(3).uniform(0, 2, (16, 3))
    kernel = ConstantKernel(0.7) * RBF([0.5, 1.0, 2.0]) + DotProduct(0.3) + WhiteKernel(0.05)
    assert choose_informative(codes_NF, 8, kernel) == brute_force_choice(kernel(codes_NF), 8)


def test_of_equal_codes_one_is_chosen_before_both() -> None:
    codes_NF = np.repeat(np.random.default_rng(0).uniform(0, 2, (6, 3)), 2, axis=0)
    chosen = choose_informative(codes_NF, 6, make_kernel())
    assert sorted(index // 2 for index in chosen) == list(range(6))


def test_a_whole_pool_can_be_chosen_and_no_more() -> None:
    codes_NF = codes_of(9)
    assert sorted(choose_informative(codes_NF, 9, make_kernel())) == list(range(9))
    with pytest.raises(ValueError, match="the pool has 9"):
        choose_informative(codes_NF, 10, make_kernel())


def test_scores_are_the_posterior_mean_of_normal_scores_under_the_fitted_kernel() -> None:
    codes_NF, others_MF = codes_of(40), codes_of(20, seed=1)
    accuracies_N = accuracies_of(codes_NF)
    predictor = AccuracyPredictor().fit(codes_NF, accuracies_N)
    labels_N = norm.ppf((rankdata(accuracies_N) - 0.5) / 40)
    cross_MN = predictor.kernel(others_MF, codes_NF)
    inverse_NN = np.linalg.inv(predictor.kernel(codes_NF))
    expected_M = cross_MN @ inverse_NN @ labels_N
    np.testing.assert_allclose(predictor.predict(others_MF), expected_M, atol=1e-6)


def test_only_the_order_of_the_accuracies_counts() -> None:
    codes_NF, accuracies_N = codes_of(30), accuracies_of(codes_of(30))
    one = AccuracyPredictor().fit(codes_NF, accuracies_N).predict(codes_NF)
    other = AccuracyPredictor().fit(codes_NF, 100 * accuracies_N**9).predict(codes_NF)
    assert one.tobytes() == other.tobytes()


def test_equal_accuracies_are_equal_labels_whatever_their_order() -> None:
    codes_NF, accuracies_N = codes_of(30), accuracies_of(codes_of(30)).round(2)
    assert len(set(accuracies_N)) < 20
    scores = AccuracyPredictor().fit(codes_NF, accuracies_N).predict(codes_NF)
    turned = AccuracyPredictor().fit(codes_NF[::-1], accuracies_N[::-1]).predict(codes_NF)
    np.testing.assert_allclose(turned, scores, atol=1e-3)


def test_fits_repeat_to_the_last_bit_and_leave_global_random_numbers_alone() -> None:
    codes_NF, accuracies_N = codes_of(30), accuracies_of(codes_of(30))
    np.random.seed(1)
    before = np.random.get_state()[1].tobytes()
    one = AccuracyPredictor().fit(codes_NF, accuracies_N).predict(codes_NF)
    assert np.random.get_state()[1].tobytes() == before
    np.random.seed(2)
    other = AccuracyPredictor().fit(codes_NF, accuracies_N).predict(codes_NF)
    assert one.tobytes() == other.tobytes()
    assert cross_validated_tau(codes_NF, accuracies_N) == cross_validated_tau(codes_NF, accuracies_N)


def test_features_without_effect_are_no_reason_to_warn() -> None:
    codes_NF = codes_of(40)
    useless_NF = np.hstack([codes_NF[:, :1], np.zeros((40, 3))])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        AccuracyPredictor().fit(useless_NF, codes_NF[:, 0])


def test_held_out_networks_are_ranked_better_than_by_a_linear_fit() -> None:
    codes_NF, others_MF = codes_of(60), codes_of(200, seed=1)
    truth_M = accuracies_of(others_MF, seed=1)
    scores_M = AccuracyPredictor().fit(codes_NF, accuracies_of(codes_NF)).predict(others_MF)
    weights_F, *_ = np.linalg.lstsq(codes_NF, accuracies_of(codes_NF) - 0.9, rcond=None)
    tau = kendalltau(scores_M, truth_M).statistic
    assert tau > max(0.85, kendalltau(others_MF @ weights_F, truth_M).statistic)


def test_each_of_ten_or_fewer_is_predicted_by_a_fit_on_all_others() -> None:
    codes_NF = codes_of(9)
    accuracies_N = accuracies_of(codes_NF)
    scores = []
    for index in range(9):
        others = np.delete(np.arange(9), index)
        fitted = AccuracyPredictor().fit(codes_NF[others], accuracies_N[others])
        scores.append(fitted.predict(codes_NF[[index]])[0])
    expected = kendalltau(scores, accuracies_N).statistic
    assert cross_validated_tau(codes_NF, accuracies_N).value == pytest.approx(expected)


def test_the_interval_tells_noise_from_what_can_be_learned() -> None:
    codes_NF = codes_of(60)
    learned = cross_validated_tau(codes_NF, accuracies_of(codes_NF))
    assert 0.7 < learned.low < learned.value < learned.high < 1
    noise = cross_validated_tau(codes_NF, np.random.default_rng(5).normal(size=60))
    assert noise.low < 0 < noise.high


# As many features as `micro` has.
@pytest.mark.parametrize("num", [40, 90])
def test_labels_of_noise_are_not_taken_for_something_learned_with_many_features(num: int) -> None:
    rng = np.random.default_rng(0)
    taus = []
    for _ in range(6):
        codes_NF = rng.integers(0, 2, (num, 30)).astype(np.float64)
        taus.append(cross_validated_tau(codes_NF, rng.normal(size=num)))
    assert abs(np.mean([tau.value for tau in taus])) < 0.1
    assert sum(tau.low > 0 for tau in taus) <= 1


def test_the_estimate_is_that_of_new_architectures_with_many_features() -> None:
    rng = np.random.default_rng(1)
    estimates, truths = [], []
    for _ in range(6):
        codes_NF = rng.integers(0, 2, (590, 30)).astype(np.float64)
        signal_N = codes_NF @ rng.normal(size=30)
        accuracies_N = signal_N + rng.normal(0, 0.7 * signal_N.std(), 590)
        scores_M = AccuracyPredictor().fit(codes_NF[:90], accuracies_N[:90]).predict(codes_NF[90:])
        truths.append(kendalltau(scores_M, accuracies_N[90:]).statistic)
        estimates.append(cross_validated_tau(codes_NF[:90], accuracies_N[:90]).value)
    assert np.mean(estimates) == pytest.approx(np.mean(truths), abs=0.08)


def test_tau_of_a_resample_is_that_of_scipy_on_the_repeated_values() -> None:
    rng = np.random.default_rng(0)
    one_N, other_N = rng.integers(0, 8, 30).astype(float), rng.normal(size=30).round(1)
    counts_BN = rng.multinomial(30, np.full(30, 1 / 30), 20)
    expected = [kendalltau(np.repeat(one_N, n), np.repeat(other_N, n)).statistic for n in counts_BN]
    np.testing.assert_allclose(_weighted_tau(one_N, other_N, counts_BN), expected)


def test_tau_of_equal_values_is_undefined() -> None:
    assert np.isnan(bootstrap_tau(np.zeros(10), np.arange(10.0))).all()


@pytest.mark.parametrize("accuracies", [[0.5, np.nan, 0.6], [0.5, 0.6]])
def test_accuracies_that_do_not_fit_are_refused(accuracies: list[float]) -> None:
    with pytest.raises(ValueError):
        AccuracyPredictor().fit(codes_of(3), np.array(accuracies))


def test_one_architecture_is_too_few_to_hold_any_out() -> None:
    with pytest.raises(ValueError):
        cross_validated_tau(codes_of(1), np.array([0.5]))
