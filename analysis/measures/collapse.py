"""Operator collapse: which candidate leads each layer, how clearly, and since when.

Shapes: E epochs, L layers, K layers that count, O candidates of the trajectory's space (identity last, if it
is one).

Source: TF-NAS, bi-sampling (operator collapse of single-path sampling).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from scipy.stats import entropy

from nas.search.records import Trajectory
from nas.space.macro_space import get_space

NO_LEADER = -1
"""Where two candidates are equally probable, as before the first architecture step."""

NOT_COUNTED = 0
"""Stands for the lock-in epoch of a layer that does not count; epochs count from 1."""

_TIE = 1e-6
"""Probabilities that differ by no more than this are equal: more than rounding, less than a step."""

EARLY = 0.25
"""Layers that lock in within this share of the joint epochs do so early."""


@dataclass(frozen=True)
class Collapse:
    """How the operators of a search developed.

    A layer locks in at the first joint epoch from which its leading real operator no longer changes, at the
    last joint epoch at the latest. Real operators are all but identity, which is a choice of depth.

    Not all layers count, only those that the last derived network keeps, whose real operators have a leader
    at the end, and whose probabilities relative to each other have changed since joint training began. The
    others say nothing about collapse: no network has their operator, or no architecture step chose it.

    Attributes:
        leader_EL: index of the most probable candidate, identity included, or `NO_LEADER`.
        probability_EL: its probability.
        operator_L: index of the real operator that leads at the end, or `NO_LEADER`.
        lock_in_epoch_L: epoch of the lock-in; `NOT_COUNTED` for layers that do not count.
        locked_early_share: share of the layers that count which lock in within the first quarter of the joint
            epochs (the first joint epoch if there are fewer than four), 0 to 1; NaN if no layer counts.
        locked_share_of_epochs: share of the joint epochs from the lock-in on, the mean over the layers that
            count, in (0, 1]: 1 if all lock in at the first joint epoch; NaN if no layer counts.
    """

    leader_EL: NDArray[np.int64]
    probability_EL: NDArray[np.float64]
    operator_L: NDArray[np.int64]
    lock_in_epoch_L: NDArray[np.int64]
    locked_early_share: float
    locked_share_of_epochs: float

    def of_layers(self, rows: Sequence[int]) -> "Collapse":
        """The same search, of which these layers are looked at; the shares stay those of all layers."""
        rows = list(rows)
        return replace(
            self,
            leader_EL=self.leader_EL[:, rows],
            probability_EL=self.probability_EL[:, rows],
            operator_L=self.operator_L[rows],
            lock_in_epoch_L=self.lock_in_epoch_L[rows],
        )


def measure_collapse(trajectory: Trajectory) -> Collapse:
    """Returns how the operators of a search developed; the trajectory must have alphas."""
    assert trajectory.alpha_ELO is not None
    alpha_ELO = trajectory.alpha_ELO.astype(np.float64)
    probability_ELO = softmax(alpha_ELO, axis=-1)
    # Normalized without identity: where that has nearly all probability, the others must not look equal.
    operator_ELO = softmax(alpha_ELO[..., : len(get_space(trajectory.space).ops)], axis=-1)
    operator_EL = _leading_candidate(operator_ELO)
    joint_E = trajectory.is_joint_E
    num_joint = int(joint_E.sum())
    is_kept_L = trajectory.derived_op_EL[-1] >= 0
    is_counted_L = is_kept_L & (operator_EL[-1] != NO_LEADER) & _has_moved(operator_ELO, joint_E)
    lock_in_K = _lock_in_index(operator_EL[joint_E])[is_counted_L]
    lock_in_epoch_L = np.full(len(is_counted_L), NOT_COUNTED)
    lock_in_epoch_L[is_counted_L] = trajectory.epoch_E[joint_E][lock_in_K]
    return Collapse(
        leader_EL=_leading_candidate(probability_ELO),
        probability_EL=probability_ELO.max(axis=-1),
        operator_L=operator_EL[-1],
        lock_in_epoch_L=lock_in_epoch_L,
        locked_early_share=_mean(lock_in_K < max(1, int(EARLY * num_joint))),
        locked_share_of_epochs=_mean(1 - lock_in_K / max(1, num_joint)),
    )


def locked_in_by_step(trajectory: Trajectory, collapse: Collapse) -> NDArray[np.float64]:
    """Returns the share of the layers that count which are locked in after 0, 1, ... of the joint epochs.

    It ends at 1; a quarter along, it is `locked_early_share`. NaN if no layer counts.
    """
    joint_E = trajectory.epoch_E[trajectory.is_joint_E]
    lock_in_K = collapse.lock_in_epoch_L[collapse.lock_in_epoch_L != NOT_COUNTED]
    return np.array([0.0, *(_mean(lock_in_K <= epoch) for epoch in joint_E)])


def final_entropy(trajectory: Trajectory) -> float:
    """Returns the mean over layers of the entropy of alpha at the end; the trajectory must have alphas."""
    assert trajectory.alpha_ELO is not None
    return float(normalized_entropy(trajectory.alpha_ELO[-1]).mean())


def train_gini(trajectory: Trajectory) -> float:
    """Returns how unevenly the joint epochs trained the operators, identity excluded: the mean over layers.

    0 if all operators of each layer were trained equally often; NaN if none was trained. The trajectory
    must have training counts.
    """
    assert trajectory.train_count_ELO is not None
    count_LO = trajectory.train_count_ELO[trajectory.is_joint_E].sum(axis=0)
    num_operators = len(get_space(trajectory.space).ops)
    return float(np.mean([gini(count_O[:num_operators]) for count_O in count_LO]))


def _leading_candidate(probability_ELO: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index of the most probable candidate; `NO_LEADER` if another one is equally probable."""
    ranked_ELO = np.sort(probability_ELO, axis=-1)
    is_tie_EL = np.diff(ranked_ELO[..., -2:], axis=-1).min(axis=-1, initial=1.0) <= _TIE
    return np.where(is_tie_EL, NO_LEADER, probability_ELO.argmax(axis=-1))


def _lock_in_index(leader_EL: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index of the first epoch from which a layer's leader no longer changes; 0 without epochs."""
    if not len(leader_EL):
        return np.zeros(leader_EL.shape[1], np.int64)
    differs_EL = leader_EL != leader_EL[-1]
    from_the_end_L = np.argmax(differs_EL[::-1], axis=0)
    return np.where(differs_EL.any(axis=0), len(leader_EL) - from_the_end_L, 0)


def _has_moved(probability_ELO: NDArray[np.float64], is_joint_E: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether a layer's probabilities differ in any joint epoch from where joint training began.

    That is the last epoch before it, or the first joint epoch if there is no warm-up.
    """
    start_LO = probability_ELO[max(0, int(is_joint_E.argmax()) - 1)]
    return np.asarray((np.abs(probability_ELO[is_joint_E] - start_LO) > _TIE).any(axis=(0, 2)))


def _mean(values_K: NDArray[np.float64] | NDArray[np.bool_]) -> float:
    """The mean of the layers that count; NaN if none does."""
    return float(np.mean(values_K)) if len(values_K) else float("nan")


def normalized_entropy(alpha_LO: NDArray[np.floating]) -> NDArray[np.float64]:
    """Returns the entropy of each layer: 0 if one candidate is certain, 1 if all are equally probable.

    Args:
        alpha_LO: log-probabilities; -inf where a layer lacks the candidate.
    """
    num_candidates_L = np.isfinite(alpha_LO).sum(axis=-1)
    entropy_L = entropy(softmax(alpha_LO.astype(np.float64), axis=-1), axis=-1)
    # A single candidate has no entropy to normalize.
    return np.asarray(entropy_L / np.log(np.maximum(num_candidates_L, 2)), np.float64)


def gini(count_O: NDArray[np.int64]) -> float:
    """Returns the mean absolute difference of counts over twice their mean; NaN if all are 0."""
    total = count_O.sum()
    if not total:
        return float("nan")
    differences = np.abs(count_O[:, None] - count_O[None, :]).sum()
    return float(differences / (2 * len(count_O) * total))
