import numpy as np
import pytest

from analysis.measures import MEASURES
from analysis.measures.latency_error import (
    final_error_percent,
    meets_target,
    misses_target,
    phase_names,
    scaling_walk_ms,
)
from tests.support.hand_made import experiment_of, run, trajectory


def test_the_error_is_signed_and_in_percent_of_the_target():
    assert final_error_percent(run(metrics={"derived_latency_ms": 14.99}, target_latency_ms=15)) == (
        pytest.approx(-100 / 1500)
    )
    assert np.isnan(final_error_percent(run(target_latency_ms=15)))


@pytest.mark.parametrize(
    ("error_percent", "is_met"), [(-0.9, True), (0.9, True), (-1.1, False), (2, False), (np.nan, False)]
)
def test_a_target_is_met_within_one_percent(error_percent: float, is_met: bool):
    assert meets_target(error_percent) == is_met


@pytest.mark.parametrize(
    ("latency_ms", "is_missed"),
    [(14.99, 0.0), (14.86, 0.0), (15.14, 0.0), (14.84, 1.0), (15.16, 1.0), (30, 1.0)],
)
def test_a_target_is_missed_more_than_one_percent_above_or_below(latency_ms: float, is_missed: float):
    searched = run(metrics={"derived_latency_ms": latency_ms}, target_latency_ms=15.0)
    assert misses_target(searched) == is_missed
    assert MEASURES["target_missed"].compute(searched, experiment_of([searched])) == is_missed


def test_whether_an_unknown_target_or_latency_is_missed_is_unknown():
    assert np.isnan(misses_target(run(target_latency_ms=15.0)))
    assert np.isnan(misses_target(run(metrics={"derived_latency_ms": 15.0})))


def test_the_walk_is_that_of_the_last_scaled_epoch_without_phases_that_were_off():
    scaling = np.full((4, 8), np.nan)
    scaling[1, :7] = 1
    scaling[2, :7] = [17.68, 14.26, 14.78, 14.9, 14.95, 14.98, 14.99]
    walk = scaling_walk_ms(trajectory(4, scaling_ms_EP=scaling))
    assert walk.tolist() == [17.68, 14.26, 14.78, 14.9, 14.95, 14.98, 14.99]
    assert phase_names(6, len(walk))[:3] == ("before", "all stages", "stages 2–6")
    assert phase_names(6, 8)[-2:] == ("stage 6", "refined")


def test_a_search_that_never_scaled_has_no_walk():
    assert len(scaling_walk_ms(trajectory(3))) == 0
    assert len(scaling_walk_ms(trajectory(3, scaling_ms_EP=None))) == 0
