"""Latency: how far derived networks are from their target, and what elasticity-scaling does.

Shapes: E epochs, P phases of elasticity-scaling.

Source: TF-NAS, elasticity-scaling.
"""

import numpy as np
from numpy.typing import NDArray

from analysis.measures.width import measure_widths
from analysis.reading.experiment import Run
from nas.search.records import Trajectory

TARGET = "target_latency_ms"
TOLERANCE_PERCENT = 1.0
"""A network meets its target if it is at most this far from it. Published: 14.99 of 15.00 ms."""


def final_error_percent(run: Run) -> float:
    """Derived latency at the end against the target, in percent of it; positive above it."""
    return 100 * (run.metrics.get("derived_latency_ms", np.nan) / run.number(TARGET) - 1)


def error_percent_by_epoch(run: Run) -> NDArray[np.float64]:
    """The same after each epoch; empty where the epochs could not be read."""
    if run.epochs is None:
        return np.empty(0)
    latency_E = run.epochs["derived_latency_ms"].to_numpy(np.float64)
    return 100 * (latency_E / run.number(TARGET) - 1)


def meets_target(run: Run) -> bool:
    """Whether the run's last derived network is within the tolerance of its target."""
    return abs(final_error_percent(run)) <= TOLERANCE_PERCENT


def is_saturated(run: Run) -> bool:
    """Whether every width of the last derived network is at the bound that is nearest to the target.

    Such a network cannot come closer: the target is out of its reach.
    """
    if run.trajectory is None:
        return False
    bound = 0 if final_error_percent(run) > 0 else 1
    kept = zip(
        run.space.layers,
        run.trajectory.derived_op_EL[-1],
        measure_widths(run.trajectory).mid_channels_EL[-1],
        strict=True,
    )
    return all(
        op < 0 or width == run.space.ops[op].width_interval(layer.in_channels)[bound]
        for layer, op, width in kept
    )


def phase_names(num_stages: int, num_phases: int) -> tuple[str, ...]:
    """Names of the phases of elasticity-scaling, in the order of `scaling_ms_EP`."""
    names = ["before", "all stages", *(f"stages {stage}–{num_stages}" for stage in range(2, num_stages + 1))]
    names[-1] = f"stage {num_stages}" if num_stages > 1 else names[-1]
    return (*names, "refined")[:num_phases]


def scaling_walk_ms(trajectory: Trajectory) -> NDArray[np.float64]:
    """Latency after each phase in the last epoch that scaled widths, in ms; empty if none did.

    Phases that were switched off in all epochs are left out.
    """
    scaled_E = np.flatnonzero(~np.isnan(trajectory.scaling_ms_EP[:, 0]))
    if not len(scaled_E):
        return np.empty(0)
    walk_P = trajectory.scaling_ms_EP[scaled_E[-1]]
    return np.asarray(walk_P[~np.isnan(walk_P)], np.float64)
