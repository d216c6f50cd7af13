import numpy as np
import pytest
from scipy import stats

from nas.foundation.errors import UserError
from nas.latency.calibration import (
    Agreement,
    check_predictions,
    compare_times,
    draw_architecture,
    fit_calibration,
    predict_ms,
    summarize_networks,
    time_networks_in_turn,
)
from nas.latency.measurement import measure_table
from nas.latency.table import Provenance, reachable_interval_ms
from nas.space.macro_space import get_space
from nas.space.operators import PAPER_OPERATORS
from tests.support.tiny import TINY, make_dense_table


def _measurements(rng, num_networks=30, slope=1.2, intercept_ms=-2.0, noise=0.02):
    predicted_ms = rng.uniform(15, 40, num_networks)
    return predicted_ms, (slope * predicted_ms + intercept_ms) * np.exp(rng.normal(0, noise, num_networks))


def test_a_systematic_difference_is_fitted():
    calibration = fit_calibration(*_measurements(np.random.default_rng(0), noise=0.0))
    assert calibration.slope == pytest.approx(1.2)
    assert calibration.intercept_ms == pytest.approx(-2.0)
    assert calibration.mape_percent == pytest.approx(0.0, abs=1e-9)


def test_the_error_of_a_correction_is_that_on_networks_left_out_of_its_fit():
    predicted_ms, measured_ms = _measurements(np.random.default_rng(1))
    errors = []
    for index in range(len(predicted_ms)):
        x, y = np.delete(predicted_ms, index), np.delete(measured_ms, index)
        # Relative least squares are least squares weighted by 1 / y.
        slope, intercept_ms = np.polyfit(x, y, 1, w=1 / y)
        errors.append(
            abs(slope * predicted_ms[index] + intercept_ms - measured_ms[index]) / measured_ms[index]
        )
    calibration = fit_calibration(predicted_ms, measured_ms)
    assert calibration.mape_percent == pytest.approx(100 * np.mean(errors))
    assert calibration.num_networks == 30


def test_noise_alone_is_not_corrected():
    rng = np.random.default_rng(2)
    predicted_ms = rng.uniform(15, 40, 30)
    measured_ms = predicted_ms * np.tile([1.03, 1 / 1.03], 15)
    calibration = fit_calibration(predicted_ms, measured_ms)
    assert (calibration.slope, calibration.intercept_ms) == (1.0, 0.0)
    assert calibration.mape_percent > 2.5


def test_the_interval_covers_95_percent_of_new_networks():
    rng = np.random.default_rng(3)
    covered = []
    for _ in range(200):
        calibration = fit_calibration(*_measurements(rng))
        predicted_ms, measured_ms = _measurements(rng)
        corrected_ms = calibration.slope * predicted_ms + calibration.intercept_ms
        half_ms = corrected_ms * calibration.half_width_percent / 100
        covered.append(np.abs(corrected_ms - measured_ms) <= half_ms)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.01)


def test_agreement_is_error_bias_and_rank_correlations():
    rng = np.random.default_rng(4)
    predicted_ms, measured_ms = _measurements(rng)
    agreement = Agreement.of(predicted_ms, measured_ms)
    relative = [(p - m) / m for p, m in zip(predicted_ms, measured_ms, strict=True)]
    assert agreement.mape_percent == pytest.approx(100 * np.mean(np.abs(relative)))
    assert agreement.bias_percent == pytest.approx(100 * np.mean(relative))
    ranks = [stats.rankdata(values) for values in (predicted_ms, measured_ms)]
    assert agreement.spearman == pytest.approx(np.corrcoef(*ranks)[0, 1])
    pairs = [
        np.sign((predicted_ms[i] - predicted_ms[j]) * (measured_ms[i] - measured_ms[j]))
        for i in range(30)
        for j in range(i)
    ]
    assert agreement.kendall_tau == pytest.approx(np.mean(pairs))


def test_drawn_networks_reach_every_depth_operator_and_bound():
    space, rng = get_space("micro"), np.random.default_rng(5)
    networks = [draw_architecture(space, rng) for _ in range(400)]
    for stage, spec in enumerate(space.stages):
        depths = {len(network.stages[stage]) for network in networks}
        assert depths == set(range(space.min_depth(stage), spec.num_layers + 1))
    assert {op.name for network in networks for _, op, _ in network.layers} == set(PAPER_OPERATORS)
    bounds = {
        op.width_interval(layer.in_channels).index(width)
        for network in networks
        for layer, op, width in network.layers
        if width in op.width_interval(layer.in_channels)
    }
    assert bounds == {0, 1}


def test_networks_are_timed_in_rounds_of_random_order():
    order = []

    def network(index):
        return lambda images: order.append(index)

    images = _Images()
    times_RNK = time_networks_in_turn(
        [(network(index), images) for index in range(4)],
        num_threads=1,
        rng=np.random.default_rng(6),
        num_rounds=3,
    )
    assert times_RNK.shape[:2] == (3, 4)
    runs = len(order) // 12
    visits = [order[start : start + runs] for start in range(0, len(order), runs)]
    assert all(len(set(visit)) == 1 for visit in visits)
    rounds = [[visit[0] for visit in visits[start : start + 4]] for start in (0, 4, 8)]
    assert all(sorted(of_round) == [0, 1, 2, 3] for of_round in rounds)
    assert len({tuple(of_round) for of_round in rounds}) > 1


class _Images:
    device = type("Device", (), {"type": "cpu"})


def test_drift_between_rounds_does_not_reach_a_networks_timing():
    slowness_R11 = np.array([1.0, 2.0, 1.0, 3.0, 1.0])[:, None, None]
    times_RNK = slowness_R11 * np.array([5.0, 7.0, 9.0])[None, :, None] * np.ones((5, 3, 4))
    timings = summarize_networks(times_RNK)
    assert [timing.median_ms for timing in timings] == pytest.approx([5.0, 7.0, 9.0])
    assert [timing.num_repeats for timing in timings] == [20] * 3


def test_a_ratio_to_the_first_network_is_taken_within_rounds_so_that_drift_cancels():
    drift_R11 = np.array([1.0, 3.0, 0.5, 2.0, 1.0]).reshape(5, 1, 1)
    cost_1N1 = np.array([4.0, 1.0, 6.0]).reshape(1, 3, 1)
    timings = compare_times(drift_R11 * cost_1N1 * np.ones((5, 3, 4)))
    assert [timing.ratio for timing in timings] == pytest.approx([1.0, 0.25, 1.5])
    assert [timing.ratio_iqr for timing in timings] == pytest.approx([0.0, 0.0, 0.0])


def test_a_check_compares_predictions_with_networks_that_really_ran():
    table = measure_table(TINY, max_duration_s=1.0, num_classes=10, even_if_busy=True)
    check = check_predictions(table, num_networks=6, seed=1, even_if_busy=True)
    assert check.agreement.num_networks == 6
    np.testing.assert_allclose(check.predicted_ms_N, predict_ms(table, check.architectures))
    assert (check.measured_ms_N > 0).all()
    corrected = table.with_calibration(check.calibration)
    low_ms, high_ms = reachable_interval_ms(corrected)
    assert all(
        low_ms <= corrected.latency_ms(architecture) <= high_ms for architecture in check.architectures
    )


def test_a_check_of_a_table_of_another_device_is_refused():
    provenance = Provenance(source="measured", device_type="cpu", device_name="Xeon Gold 6130")
    table = make_dense_table(TINY).model_copy(update={"provenance": provenance})
    with pytest.raises(UserError, match="Xeon Gold 6130"):
        check_predictions(table, num_networks=5)
