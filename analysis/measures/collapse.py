"""Operator collapse: which candidate leads each layer, how surely, and from when on.

Shapes: E epochs, L layers, O candidates.

Source: TF-NAS, bi-sampling (operator collapse of single-path sampling).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from scipy.stats import entropy

from nas.search.records import Trajectory
from nas.space.operators import PAPER_OPERATORS, SKIP_OP_NAME

NO_LEADER = -1
"""Where two candidates are equally probable, as before the first architecture step."""

CANDIDATE_NAMES: tuple[str, ...] = (*PAPER_OPERATORS, SKIP_OP_NAME)

_TIE = 1e-6
_EARLY = 0.25


@dataclass(frozen=True)
class Collapse:
    """How the operators of a search developed.

    Attributes:
        leader_EL: index of the most probable candidate, or `NO_LEADER`.
        probability_EL: its probability.
        entropy_EL: entropy of alpha, 0 (one candidate certain) to 1 (all equally probable).
        lock_in_epoch_L: first joint epoch from which on the leader never changes; the last
            joint epoch at the latest.
        locked_early_share: share of the layers that are locked in within the first quarter of the
            joint epochs (the first joint epoch, where there are fewer than four); NaN without
            joint epochs.
        train_count_LO: how many paths through a candidate the joint epochs trained.
        train_gini: Gini coefficient of these counts over the operators (identity excepted), 0
            where all were trained equally often; the mean over the layers; NaN if none was.
    """

    leader_EL: NDArray[np.int64]
    probability_EL: NDArray[np.float64]
    entropy_EL: NDArray[np.float64]
    lock_in_epoch_L: NDArray[np.int64]
    locked_early_share: float
    train_count_LO: NDArray[np.int64]
    train_gini: float


def measure_collapse(trajectory: Trajectory) -> Collapse:
    """How the operators of a search developed, from its alphas and training counts."""
    probability_ELO = softmax(trajectory.alpha_ELO.astype(np.float64), axis=-1)
    leader_EL = leading_candidate(probability_ELO)
    joint_E = trajectory.is_joint_E
    lock_in_L = lock_in_index(leader_EL[joint_E])
    num_joint = int(joint_E.sum())
    train_count_LO = trajectory.train_count_ELO[joint_E].sum(axis=0)
    return Collapse(
        leader_EL=leader_EL,
        probability_EL=probability_ELO.max(axis=-1),
        entropy_EL=normalised_entropy(probability_ELO, np.isfinite(trajectory.alpha_ELO)),
        lock_in_epoch_L=trajectory.epoch_E[joint_E][lock_in_L] if num_joint else lock_in_L,
        locked_early_share=float(np.mean(lock_in_L < max(1, int(_EARLY * num_joint))))
        if num_joint
        else np.nan,
        train_count_LO=train_count_LO,
        train_gini=float(np.mean([gini(count_O[: len(PAPER_OPERATORS)]) for count_O in train_count_LO])),
    )


def leading_candidate(probability_ELO: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index of the most probable candidate; `NO_LEADER` where the second is its equal."""
    second_ELO, first_ELO = np.moveaxis(np.partition(probability_ELO, -2, axis=-1)[..., -2:], -1, 0)
    return np.where(first_ELO - second_ELO > _TIE, probability_ELO.argmax(axis=-1), NO_LEADER)


def lock_in_index(leader_EL: NDArray[np.int64]) -> NDArray[np.int64]:
    """First epoch's index from which on a layer's leader never changes; 0 without epochs."""
    if not len(leader_EL):
        return np.zeros(leader_EL.shape[1], np.int64)
    differs_EL = leader_EL != leader_EL[-1]
    from_the_end_L = np.argmax(differs_EL[::-1], axis=0)
    return np.where(differs_EL.any(axis=0), len(leader_EL) - from_the_end_L, 0)


def normalised_entropy(
    probability_ELO: NDArray[np.float64], is_candidate_ELO: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Entropy over its greatest value, the logarithm of the number of the layer's candidates."""
    entropy_EL = entropy(probability_ELO, axis=-1)
    greatest_EL = np.log(is_candidate_ELO.sum(axis=-1))
    return np.asarray(entropy_EL / greatest_EL, np.float64)


def gini(count_O: NDArray[np.int64]) -> float:
    """Gini coefficient of counts: mean absolute difference over twice the mean; NaN if all are 0."""
    total = count_O.sum()
    if not total:
        return float("nan")
    differences = np.abs(count_O[:, None] - count_O[None, :]).sum()
    return float(differences / (2 * len(count_O) * total))
