"""Latency: how far derived networks are from their target, and what elasticity-scaling changes.

Shapes: E epochs, P phases of elasticity-scaling.

Source: TF-NAS, elasticity-scaling.
"""

import numpy as np
from numpy.typing import NDArray

from analysis.reading.run import Run
from nas.search.records import Trajectory

TARGET = "target_latency_ms"
TOLERANCE_PERCENT = 1.0
"""A network meets its target if it is at most this far from it. Published: 14.99 of 15.00 ms."""


def final_error_percent(run: Run) -> float:
    """Returns how far the last derived latency is above its target, in percent of the target."""
    return 100 * (run.metric("derived_latency_ms") / run.number(TARGET) - 1)


def meets_target(error_percent: float) -> bool:
    """Returns whether an error is within the tolerance; NaN is not."""
    return abs(error_percent) <= TOLERANCE_PERCENT


def misses_target(run: Run) -> float:
    """Returns 1.0 if the last derived latency is not within the tolerance of its target, else 0.0.

    NaN if the run lacks the latency or the target.
    """
    error_percent = final_error_percent(run)
    return float("nan") if np.isnan(error_percent) else float(not meets_target(error_percent))


def phase_names(num_stages: int, num_phases: int) -> tuple[str, ...]:
    """Returns the names of the phases of elasticity-scaling, in the order of `scaling_ms_EP`."""
    names = ["before", "all stages", *(f"stages {stage}–{num_stages}" for stage in range(2, num_stages + 1))]
    names[-1] = f"stage {num_stages}" if num_stages > 1 else names[-1]
    return (*names, "refined")[:num_phases]


def scaling_walk_ms(trajectory: Trajectory) -> NDArray[np.float64]:
    """Returns the latency after each phase of the last elasticity-scaling, in ms; empty without any.

    Phases that were switched off in all epochs are left out.
    """
    scaling_ms_EP = trajectory.scaling_ms_EP
    if scaling_ms_EP is None or not len(scaled_E := np.flatnonzero(~np.isnan(scaling_ms_EP[:, 0]))):
        return np.empty(0)
    walk_P = scaling_ms_EP[scaled_E[-1]]
    return np.asarray(walk_P[~np.isnan(walk_P)], np.float64)
