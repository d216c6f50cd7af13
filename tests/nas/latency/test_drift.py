import numpy as np
import pytest

from nas.latency.drift import group_quantiles, remove_drift, summarize_timings


def _interleaved(rng, num_items=20, num_runs=200, noise=0.02):
    """Samples of items of known cost, in runs of ten items on a machine that is at times twice as slow."""
    costs_I = rng.uniform(0.1, 3.0, num_items)
    slowness_R = np.where(rng.random(num_runs) < 0.4, 2.0, 1.0)
    item_S = np.concatenate([rng.permutation(num_items)[:10] for _ in range(num_runs)])
    run_S = np.repeat(np.arange(num_runs), 10)
    times_S = costs_I[item_S] * slowness_R[run_S] * np.exp(rng.normal(0, noise, len(item_S)))
    return costs_I, times_S, item_S, run_S


def test_drift_that_doubles_times_at_random_does_not_reach_the_medians():
    costs_I, *samples = _interleaved(np.random.default_rng(0))
    timings = summarize_timings(*samples)
    np.testing.assert_allclose([t.median_ms for t in timings], costs_I, rtol=0.02)
    assert max(t.iqr_ms / t.median_ms for t in timings) < 0.06


def test_without_drift_samples_stay_as_they_are_but_for_the_noise_of_their_run():
    costs_I, _, item_S, run_S = _interleaved(np.random.default_rng(1))
    np.testing.assert_allclose(remove_drift(costs_I[item_S], item_S, run_S), costs_I[item_S])


@pytest.mark.parametrize("quantile", [0.0, 0.25, 0.5, 0.8, 1.0])
def test_group_quantiles_are_those_of_numpy(quantile):
    rng = np.random.default_rng(2)
    values_S, group_S = rng.random(200), rng.integers(0, 9, 200)
    group_S[group_S == 4] = 5
    expected = [
        np.quantile(values_S[group_S == group], quantile) if group != 4 else np.nan for group in range(9)
    ]
    np.testing.assert_allclose(group_quantiles(values_S, group_S, quantile), expected)
