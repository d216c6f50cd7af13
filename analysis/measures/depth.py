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
    """How the depth of the most probable network developed.

    That is the derived network, but for the last epoch of a search that ends with a network in reach of its
    target: no such step is part of the fluctuation. All numbers but `depth_ES` are of joint epochs only:
    before, no architecture parameter has moved. Changes are counted stage by stage: a layer that one stage
    loses and another one gains is two changes.

    Attributes:
        depth_ES: kept layers of each stage, for all epochs.
        fluctuation: mean absolute change of a stage's depth from one joint epoch to the next, summed over the
            stages, in layers per epoch; NaN with fewer than two joint epochs, or if no layer can be skipped.
        fluctuation_without_drift: the part of it that was undone: the same without each stage's net change
            from the first joint epoch to the last. 0 for depths that move steadily to their final value, at
            most `fluctuation`; NaN where that is.
        num_flips: changes of a stage's depth against the direction of its previous change, summed over the
            stages.
        depth_range: difference of the largest and the smallest depth of the whole network, in layers; NaN
            without joint epochs.
        collapsed_to_floor: 1 if at the end every stage has the smallest depth that is possible, else 0; NaN
            without joint epochs, or if no layer can be skipped. Such a search may fluctuate little because
            it failed.
    """

    depth_ES: NDArray[np.int64]
    fluctuation: float
    fluctuation_without_drift: float
    num_flips: int
    depth_range: float
    collapsed_to_floor: float


def measure_depth(trajectory: Trajectory) -> DepthCourse:
    """Returns how the depth of a search developed."""
    space = get_space(trajectory.space)
    is_kept_EL = most_probable_layers(trajectory)
    is_skippable_L = skippable_layers(space)
    depth_ES = _count_by_stage(is_kept_EL, space)
    joint_ES = _count_by_stage(is_kept_EL & is_skippable_L, space)[trajectory.is_joint_E]
    total_E = depth_ES[trajectory.is_joint_E].sum(axis=1)
    change_ES = np.diff(joint_ES, axis=0)
    num_moved = int(np.abs(change_ES).sum())
    num_drifted = int(np.abs(change_ES.sum(axis=0)).sum())
    can_move = bool(is_skippable_L.any())
    can_change = can_move and len(change_ES) > 0
    return DepthCourse(
        depth_ES=depth_ES,
        fluctuation=num_moved / len(change_ES) if can_change else np.nan,
        fluctuation_without_drift=(num_moved - num_drifted) / len(change_ES) if can_change else np.nan,
        num_flips=sum(count_flips(change_E) for change_E in change_ES.T),
        depth_range=float(np.ptp(total_E)) if len(total_E) else np.nan,
        collapsed_to_floor=float(not joint_ES[-1].any()) if can_move and len(joint_ES) else np.nan,
    )


def most_probable_layers(trajectory: Trajectory) -> NDArray[np.bool_]:
    """Which layers the most probable network of each epoch keeps, (E, L).

    Of methods without alphas, those of the derived network.
    """
    alpha_ELO, beta_ESD = trajectory.alpha_ELO, trajectory.beta_ESD
    if alpha_ELO is None:
        return np.asarray(trajectory.derived_op_EL >= 0)
    space = get_space(trajectory.space)
    is_kept_EL: NDArray[np.bool_] = alpha_ELO.argmax(-1) < len(space.ops)
    if beta_ESD is not None and beta_ESD.size:
        depth_ES = beta_ESD.argmax(-1)
        for index, layer in enumerate(space.layers):
            is_kept_EL[:, index] &= layer.index < depth_ES[:, layer.stage]
    return is_kept_EL


def skippable_layers(space: Space) -> NDArray[np.bool_]:
    """Returns, for each layer, whether a derived network may lack it.

    Sinks lie behind all layers from a stage's smallest depth on. Identity needs a layer that keeps the shape.
    Both are the same layers: within a stage all but the first keep the shape, and the smallest depth is 0
    only where the first one does too.
    """
    return np.array([layer.index >= space.min_depth(layer.stage) for layer in space.layers])


def count_redundant(trajectory: Trajectory) -> int:
    """Counts the joint epochs whose encoding is not the only one of its network.

    The trajectory must have `redundant_E`.
    """
    assert trajectory.redundant_E is not None
    return int(trajectory.redundant_E[trajectory.is_joint_E].sum())


def redundant_share(trajectory: Trajectory) -> float:
    """Returns `count_redundant` as a share of the joint epochs, 0 to 1; NaN without joint epochs."""
    num_joint = int(trajectory.is_joint_E.sum())
    return count_redundant(trajectory) / num_joint if num_joint else np.nan


def count_encodings(trajectory: Trajectory) -> tuple[int, int]:
    """Counts the distinct encodings of the joint epochs, and the distinct networks that they stand for."""
    space = get_space(trajectory.space)
    derived_EL = trajectory.derived_op_EL[trajectory.is_joint_E]
    encodings = {tuple(row) for row in derived_EL.tolist()}
    return len(encodings), len({network_of(np.array(row), space) for row in encodings})


def _count_by_stage(flag_EL: NDArray[np.bool_], space: Space) -> NDArray[np.int64]:
    """Number of layers of each stage that have the flag, (E, S)."""
    stage_L = np.array([layer.stage for layer in space.layers])
    return np.stack([flag_EL[:, stage_L == stage].sum(axis=1) for stage in range(len(space.stages))], axis=1)


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
