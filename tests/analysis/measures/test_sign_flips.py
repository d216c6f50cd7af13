import itertools

import numpy as np
import pytest
from scipy import stats

from analysis.measures.sign_flips import interval, is_constant, lower_bound, p_value
from analysis.measures.summary import summarize


def by_enumeration(values: np.ndarray, null: float = 0.0) -> float:
    """Share of all sign flips whose mean is at least as large."""
    excess = values - null
    means = [np.mean(excess * signs) for signs in itertools.product([1, -1], repeat=len(values))]
    return float(np.mean(np.array(means) >= excess.mean() - 1e-12))


@pytest.mark.parametrize("seed", range(8))
def test_the_p_value_is_that_of_all_sign_flips_or_of_the_test_corrected_for_skewness_if_larger(seed: int):
    values = np.random.default_rng(seed).normal(0.4, 1, 9)
    expected = max(by_enumeration(values), skew_corrected(values))
    assert p_value(values, "greater") == pytest.approx(expected)
    assert p_value(-values, "less") == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_the_p_value_is_never_below_that_of_all_sign_flips(seed: int):
    values = np.random.default_rng(seed).exponential(1, 9) - 0.7
    for null in (-0.2, 0.0, 0.3):
        assert p_value(values, "greater", null) >= by_enumeration(values, null) - 1e-12


def test_seven_values_of_one_sign_have_the_smallest_p_value_there_is():
    values = np.array([1.0, 2, 3, 4, 5, 6, 7])
    assert p_value(values, "greater") == pytest.approx(1 / 128)
    assert p_value(values, "less") == pytest.approx(1)
    assert p_value(np.full(7, 0.1), "greater") == pytest.approx(1 / 128)


def test_values_that_are_all_zero_are_no_evidence():
    assert p_value(np.zeros(9), "greater") == 1
    assert interval(np.zeros(9)) is None
    assert is_constant(np.zeros(9))


def test_many_values_are_flipped_at_random_and_the_p_value_is_never_zero():
    values = np.random.default_rng(0).normal(0.4, 1, 20)
    exact = by_enumeration_in_blocks(values)
    assert p_value(values, "greater") == pytest.approx(max(exact, skew_corrected(values)), rel=0.1)
    assert p_value(np.linspace(1, 2, 40), "greater") == pytest.approx(1 / 2**16)


def by_enumeration_in_blocks(values: np.ndarray) -> float:
    """The same for up to 20 values, without a list of a million arrays."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return float(np.mean(sums >= values.sum() - 1e-9))


def skew_corrected(values: np.ndarray) -> float:
    """Hall's transformation, as in his paper: T + g T^2 / (3 sqrt n) + g^2 T^3 / (27 n) + g / (6 sqrt n)."""
    n, g = len(values), stats.skew(values, bias=False)
    t = stats.ttest_1samp(values, 0).statistic
    corrected = t + g * t**2 / (3 * np.sqrt(n)) + g**2 * t**3 / (27 * n) + g / (6 * np.sqrt(n))
    return float(stats.t.sf(corrected, n - 1))


def test_values_with_a_long_tail_are_tested_with_a_correction_for_skewness():
    # Most are a little below 0, one is far above: a long tail to the right, as of a mean that may well be 0.
    values = np.array([-0.9, -0.8, -0.8, -0.7, -0.6, -0.5, -0.5, -0.3, -0.1, 0.1])
    assert stats.skew(values) > 0.3
    assert p_value(values, "less") == pytest.approx(max(by_enumeration(-values), skew_corrected(-values)))
    assert p_value(values, "less") > by_enumeration(-values)


@pytest.mark.parametrize("n", [7, 10, 12])
def test_the_interval_contains_exactly_the_means_that_the_test_does_not_reject(n: int):
    values = np.random.default_rng(n).normal(1, 2, n)
    low, high = interval(values) or (0.0, 0.0)
    assert p_value(values, "greater", low - 1e-6) <= 0.025 < p_value(values, "greater", low + 1e-6)
    assert p_value(values, "less", high + 1e-6) <= 0.025 < p_value(values, "less", high - 1e-6)


def test_an_interval_ends_where_no_mean_is_possible():
    # Of shares, and skewed: the correction for skewness alone would go below -1.
    values = np.array([-1.0] * 10 + [-0.1, 0.1])
    low, high = interval(values) or (0.0, 0.0)
    assert low < -1
    assert interval(values, (-1, 1)) == (-1, high)
    assert interval(-values, (-1, 1)) == (-high, 1)
    assert summarize(-values, (0, 1)).interval == (0, 1)


@pytest.mark.parametrize("num_plus", range(4))
@pytest.mark.parametrize("num_minus", range(1, 8))
def test_yes_or_no_is_tested_by_the_exact_sign_test(num_plus: int, num_minus: int):
    values = np.array([1.0] * num_plus + [-1.0] * num_minus + [0.0] * (12 - num_plus - num_minus))
    for direction, num_for in (("less", num_minus), ("greater", num_plus)):
        expected = stats.binomtest(num_for, num_plus + num_minus, alternative="greater").pvalue
        assert p_value(values, direction, bounds=(-1, 1)) == pytest.approx(expected)


def test_each_further_miss_makes_yes_or_no_more_significant_and_its_interval_lie_lower():
    samples = [np.array([-1.0] * k + [0.0] * (12 - k)) for k in range(13)]
    p_values = [p_value(values, "less", bounds=(-1, 1)) for values in samples]
    assert p_values == sorted(p_values, reverse=True)
    highs = [(interval(values, (-1, 1)) or (0, 0))[1] for values in samples[1:]]
    assert highs == sorted(highs, reverse=True)


@pytest.mark.parametrize("n", [7, 12])
@pytest.mark.parametrize("share_plus", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("share_minus", [0.0, 0.02, 0.3, 0.5, 0.7])
def test_the_interval_of_yes_or_no_holds_its_promise_for_every_outcome(
    n: int, share_plus: float, share_minus: float
):
    shares = (share_plus, share_minus, 1 - share_plus - share_minus)
    coverage = 0.0
    for plus in range(n + 1):
        for minus in range(n + 1 - plus):
            values = np.array([1.0] * plus + [-1.0] * minus + [0.0] * (n - plus - minus))
            low, high = interval(values, (-1, 1)) or (0.0, 0.0)
            if low <= share_plus - share_minus <= high:
                coverage += stats.multinomial.pmf((plus, minus, n - plus - minus), n, shares)
    assert coverage >= 0.95


def test_fewer_than_seven_values_have_no_interval():
    assert interval(np.arange(6.0)) is None


def test_equal_values_leave_room_for_others_that_are_too_rare_to_be_seen():
    equal = np.full(10, -0.25)
    assert interval(equal) is None
    low, high = interval(equal, (-1, 1)) or (0.0, 0.0)
    share = stats.beta.ppf(0.025, 10, 1)  # Clopper and Pearson's lower limit of 10 of 10
    assert (low, high) == pytest.approx((-0.25 * share - (1 - share), -0.25 * share + (1 - share)))
    # So many others at 1 that the mean is 0: 0.2 of all.
    assert p_value(equal, "less", bounds=(-1, 1)) == pytest.approx(0.8**10)
    assert p_value(np.full(10, -1.0), "less", bounds=(-1, 1)) == pytest.approx(2**-10)


def test_so_few_values_are_never_significant_at_a_level_below_their_smallest_p_value():
    assert lower_bound(np.arange(7.0), 1 / 129) == float("-inf")
    assert np.isfinite(lower_bound(np.arange(7.0), 1 / 128))


def test_the_interval_does_not_depend_on_order_or_unit():
    values = np.random.default_rng(3).gamma(2, size=11)
    low, high = interval(values) or (0.0, 0.0)
    assert interval(values[::-1].copy()) == pytest.approx((low, high))
    assert interval(1000 * values) == pytest.approx((1000 * low, 1000 * high))
    assert interval(-values) == pytest.approx((-high, -low))


def test_values_that_are_not_known_do_not_count():
    summary = summarize([1.0, np.nan, 3.0])
    assert (summary.n, summary.mean, summary.interval) == (2, 2.0, None)
    assert summarize([np.nan]).n == 0
