"""Operator collapse: which candidate leads each layer, how clearly, and since when.

Shapes: E epochs, L layers, O candidates of the trajectory's space (identity last, if it is one).

Source: TF-NAS, bi-sampling (operator collapse of single-path sampling).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from scipy.stats import entropy

from nas.search.records import Trajectory
from nas.space.macro_space import get_space

NO_LEADER = -1
"""Where two candidates are equally probable, as before the first architecture step."""

_TIE = 1e-6
_EARLY = 0.25


@dataclass(frozen=True)
class Collapse:
    """How the operators of a search developed.

    Attributes:
        leader_EL: index of the most probable candidate, or `NO_LEADER`.
        probability_EL: its probability.
        lock_in_epoch_L: first joint epoch from which the leader no longer changes; the last joint
            epoch at the latest.
        locked_early_share: share of the layers that lock in within the first quarter of the joint
            epochs (the first joint epoch if there are fewer than four); NaN without joint epochs.
    """

    leader_EL: NDArray[np.int64]
    probability_EL: NDArray[np.float64]
    lock_in_epoch_L: NDArray[np.int64]
    locked_early_share: float


def measure_collapse(trajectory: Trajectory) -> Collapse:
    """Returns how the operators of a search developed; the trajectory must have alphas."""
    assert trajectory.alpha_ELO is not None
    probability_ELO = softmax(trajectory.alpha_ELO.astype(np.float64), axis=-1)
    leader_EL = _leading_candidate(probability_ELO)
    joint_E = trajectory.is_joint_E
    num_joint = int(joint_E.sum())
    lock_in_L = _lock_in_index(leader_EL[joint_E])
    is_early_L = lock_in_L < max(1, int(_EARLY * num_joint))
    return Collapse(
        leader_EL=leader_EL,
        probability_EL=probability_ELO.max(axis=-1),
        lock_in_epoch_L=trajectory.epoch_E[joint_E][lock_in_L] if num_joint else lock_in_L,
        locked_early_share=float(is_early_L.mean()) if num_joint else np.nan,
    )


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
