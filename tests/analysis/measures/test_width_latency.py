from dataclasses import replace

import numpy as np
import pytest
from analysis.measures.width import measure_widths

from analysis.measures.latency_error import (
    error_percent_by_epoch,
    final_error_percent,
    is_saturated,
    meets_target,
    phase_names,
    scaling_walk_ms,
)
from nas.space.macro_space import get_space
from tests.support.hand_made import run, trajectory


def test_a_width_is_that_of_the_derived_operator_and_0_where_the_layer_is_dropped():
    derived = np.zeros((1, 18), np.int64)
    derived[0, 0], derived[0, 1] = 3, -1
    mid = np.zeros((1, 18, 8), np.int64)
    mid[0, 0, 3], mid[0, 2, 0] = 80, 77
    widths = measure_widths(trajectory(1, derived_op_EL=derived, mid_channels_ELO=mid))
    assert widths.mid_channels_EL[0, :3].tolist() == [80, 0, 77]
    # Inputs of the first three layers of `paper`: 16, 24, 24.
    assert widths.expansion_EL[0, 0] == 5.0
    assert np.isnan(widths.expansion_EL[0, 1])
    assert widths.expansion_EL[0, 2] == pytest.approx(77 / 24)


def test_the_error_is_signed_and_in_percent_of_the_target():
    assert final_error_percent(run(metrics={"derived_latency_ms": 14.99}, target_latency_ms=15)) == (
        pytest.approx(-100 / 1500)
    )
    assert np.isnan(final_error_percent(run(target_latency_ms=15)))
    assert len(error_percent_by_epoch(run(target_latency_ms=15))) == 0


@pytest.mark.parametrize(
    ("latency_ms", "is_met"), [(9.91, True), (10.09, True), (9.89, False), (10.2, False)]
)
def test_a_target_is_met_within_one_percent(latency_ms: float, is_met: bool):
    assert meets_target(run(metrics={"derived_latency_ms": latency_ms}, target_latency_ms=10.0)) == is_met


def test_the_walk_is_that_of_the_last_scaled_epoch_without_phases_that_were_off():
    scaling = np.full((4, 8), np.nan)
    scaling[1, :7] = 1
    scaling[2, :7] = [17.68, 14.26, 14.78, 14.9, 14.95, 14.98, 14.99]
    walk = scaling_walk_ms(trajectory(4, scaling_ms_EP=scaling))
    assert walk.tolist() == [17.68, 14.26, 14.78, 14.9, 14.95, 14.98, 14.99]
    assert phase_names(6, len(walk))[:3] == ("before", "all stages", "stages 2–6")
    assert phase_names(6, 8)[-2:] == ("stage 6", "refined")


@pytest.mark.parametrize(
    ("latency_ms", "factor", "is_stuck"), [(11, 2, True), (11, 4, False), (9, 4, True), (9, 2, False)]
)
def test_a_network_is_saturated_if_every_width_is_at_the_bound_nearest_to_the_target(
    latency_ms: float, factor: int, is_stuck: bool
):
    # Operator 0 is k3_e3: between 2 and 4 times the input channels.
    in_channels = np.array([layer.in_channels for layer in get_space("paper").layers])
    mid = np.repeat(factor * in_channels[None, :, None], 8, axis=2)
    stuck = replace(
        run(metrics={"derived_latency_ms": latency_ms}, target_latency_ms=10.0, space="paper"),
        trajectory=trajectory(1, mid_channels_ELO=mid),
    )
    assert is_saturated(stuck) == is_stuck
    mid[0, 3] += 1 if factor == 2 else -1
    assert not is_saturated(replace(stuck, trajectory=trajectory(1, mid_channels_ELO=mid)))


def test_a_search_that_never_scaled_has_no_walk():
    assert len(scaling_walk_ms(trajectory(3))) == 0
