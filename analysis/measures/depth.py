"""Depth: how it moved during a search, and how many encodings stood for the same network.

Shapes: E epochs, L layers, S stages.

Source: TF-NAS, sink-connecting space (depth fluctuation and architecture redundancy).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.search.records import Trajectory
from nas.space.macro_space import Space, get_space


@dataclass(frozen=True)
class DepthCourse:
    """How the derived depth developed.

    Its numbers are of joint epochs only: before, no architecture parameter has moved.

    Attributes:
        depth_ES: kept layers of each stage, for all epochs.
        fluctuation: mean absolute change of the depth from one joint epoch to the next, in layers;
            NaN with fewer than two.
        num_flips: changes of depth against the direction of the previous change.
    """

    depth_ES: NDArray[np.int64]
    fluctuation: float
    num_flips: int


def measure_depth(trajectory: Trajectory) -> DepthCourse:
    """Returns how the derived depth of a search developed."""
    depth_ES = _stage_depths(trajectory.derived_op_EL, get_space(trajectory.space))
    change_E = np.diff(depth_ES.sum(axis=1)[trajectory.is_joint_E])
    fluctuation = float(np.abs(change_E).mean()) if len(change_E) else np.nan
    return DepthCourse(depth_ES, fluctuation, count_flips(change_E))


def redundant_share(trajectory: Trajectory) -> float:
    """Returns the share of the joint epochs whose encoding is not the only one of its network.

    NaN without joint epochs. The trajectory must have `redundant_E`.
    """
    assert trajectory.redundant_E is not None
    redundant_E = trajectory.redundant_E[trajectory.is_joint_E]
    return float(redundant_E.mean()) if len(redundant_E) else np.nan


def count_encodings(trajectory: Trajectory) -> tuple[int, int]:
    """Counts the distinct encodings of the joint epochs, and the distinct networks that they stand for."""
    space = get_space(trajectory.space)
    derived_EL = trajectory.derived_op_EL[trajectory.is_joint_E]
    encodings = {tuple(row) for row in derived_EL.tolist()}
    return len(encodings), len({network_of(np.array(row), space) for row in encodings})


def _stage_depths(derived_op_EL: NDArray[np.int64], space: Space) -> NDArray[np.int64]:
    """Number of kept layers of each stage, by epoch."""
    kept_EL = derived_op_EL >= 0
    stage_L = np.array([layer.stage for layer in space.layers])
    return np.stack([kept_EL[:, stage_L == stage].sum(axis=1) for stage in range(len(space.stages))], axis=1)


def count_flips(change_E: NDArray[np.int64]) -> int:
    """Counts how often a change has the opposite direction of the previous one, zeros ignored."""
    directions = np.sign(change_E[change_E != 0])
    return int((directions[1:] != directions[:-1]).sum())


def network_of(derived_op_L: NDArray[np.int64], space: Space) -> tuple[tuple[int, ...], ...]:
    """Returns the network of an encoding: the kept operators of each stage in order, wherever they stood."""
    return tuple(
        tuple(
            int(op)
            for layer, op in zip(space.layers, derived_op_L, strict=True)
            if layer.stage == stage and op >= 0
        )
        for stage in range(len(space.stages))
    )
