"""Depth: how far it moved through a search, and how many encodings named the same network.

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
    """How the derived depth developed. All numbers are of the joint epochs only.

    Before them no architecture parameter has moved, and the derived depth means nothing.

    Attributes:
        depth_ES: kept layers of each stage, by epoch (all epochs).
        fluctuation: mean absolute change of the depth from one joint epoch to the next, in
            layers; NaN with fewer than two.
        depth_range: greatest less smallest depth, in layers; NaN without joint epochs.
        num_flips: changes of depth whose direction is opposite to that of the change before.
        redundant_share: share of the epochs whose encoding is not the only one of its network;
            NaN without joint epochs.
        num_encodings: distinct encodings that the search derived from.
        num_networks: distinct networks (operators and depths) that they stand for.
    """

    depth_ES: NDArray[np.int64]
    fluctuation: float
    depth_range: float
    num_flips: int
    redundant_share: float
    num_encodings: int
    num_networks: int


def measure_depth(trajectory: Trajectory) -> DepthCourse:
    """How the derived depth of a search developed, from the layers that it kept."""
    space = get_space(trajectory.space)
    depth_ES = stage_depths(trajectory.derived_op_EL, space)
    joint_E = trajectory.is_joint_E
    depth_E = depth_ES.sum(axis=1)[joint_E]
    change_E = np.diff(depth_E)
    derived_EL = trajectory.derived_op_EL[joint_E]
    return DepthCourse(
        depth_ES=depth_ES,
        fluctuation=float(np.abs(change_E).mean()) if len(change_E) else np.nan,
        depth_range=float(np.ptp(depth_E)) if len(depth_E) else np.nan,
        num_flips=count_flips(change_E),
        redundant_share=float(trajectory.redundant_E[joint_E].mean()) if len(depth_E) else np.nan,
        num_encodings=len({tuple(row) for row in derived_EL.tolist()}),
        num_networks=len({network_of(row, space) for row in derived_EL}),
    )


def stage_depths(derived_op_EL: NDArray[np.int64], space: Space) -> NDArray[np.int64]:
    """Number of kept layers of each stage, by epoch."""
    kept_EL = derived_op_EL >= 0
    stage_L = np.array([layer.stage for layer in space.layers])
    return np.stack([kept_EL[:, stage_L == stage].sum(axis=1) for stage in range(len(space.stages))], axis=1)


def count_flips(change_E: NDArray[np.int64]) -> int:
    """How often a change's direction is opposite to the last one's; epochs without change apart."""
    directions = np.sign(change_E[change_E != 0])
    return int((directions[1:] != directions[:-1]).sum())


def network_of(derived_op_L: NDArray[np.int64], space: Space) -> tuple[tuple[int, ...], ...]:
    """The network behind an encoding: each stage's kept operators in order, wherever they stood."""
    return tuple(
        tuple(
            int(op)
            for layer, op in zip(space.layers, derived_op_L, strict=True)
            if layer.stage == stage and op >= 0
        )
        for stage in range(len(space.stages))
    )
