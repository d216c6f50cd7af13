"""Importance of each field of a space for each objective, and what chance alone would give.

Source: fANOVA (Hutter, Hoos, Leyton-Brown: An Efficient Approach for Assessing Hyperparameter
Importance, ICML 2014), as Optuna has it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

MIN_TRIALS = 4
NUM_SHUFFLES = 19
MAX_TRIALS_TO_SHUFFLE = 200
_NUM_TREES = 16


@dataclass(frozen=True)
class Importance:
    """Importance of one field for one objective.

    Attributes:
        share: share of the variance that single fields explain, 0 to 1. Shares of fields that are always
            sampled sum to 1; that of a conditional field is computed beside them, where it was sampled.
        chance: largest of 19 such shares after shuffling the values among the points: a share below it
            means nothing. None above 200 points, where this takes minutes.
        num_trials: number of points behind both.
    """

    field: str
    metric: str
    share: float
    chance: float | None
    num_trials: int


def measure_importances(
    trials: Sequence[FrozenTrial], fields: Sequence[str], metrics: Sequence[str]
) -> list[Importance]:
    """The importance of each field for each objective, if enough points have it and values differ.

    Args:
        trials: complete trials.
        fields: fields of the space.
        metrics: metrics of the objectives, in order.
    """
    always = [field for field in fields if all(field in trial.params for trial in trials)]
    found = []
    for index, metric in enumerate(metrics):
        found += _measure(trials, always, always, metric, index)
        for field in fields:
            if field not in always:
                own = [trial for trial in trials if field in trial.params]
                found += _measure(own, [*always, field], [field], metric, index)
    return found


def _measure(
    trials: Sequence[FrozenTrial], fields: Sequence[str], asked: Sequence[str], metric: str, index: int
) -> list[Importance]:
    values = np.array([trial.values[index] for trial in trials])
    if len(trials) < MIN_TRIALS or np.ptp(values) == 0:
        return []
    shares = _shares(trials, fields, values)
    chances: list[dict[str, float]] = []
    if len(trials) <= MAX_TRIALS_TO_SHUFFLE:
        rng = np.random.default_rng(0)
        chances = [_shares(trials, fields, rng.permutation(values)) for _ in range(NUM_SHUFFLES)]
    return [
        Importance(
            field,
            metric,
            shares[field],
            max(chance[field] for chance in chances) if chances else None,
            len(trials),
        )
        for field in asked
    ]


def _shares(
    trials: Sequence[FrozenTrial], fields: Sequence[str], values: np.ndarray[Any, Any]
) -> dict[str, float]:
    study = optuna.create_study()
    study.add_trials([_as_linear(trial, fields, value) for trial, value in zip(trials, values, strict=True)])
    evaluator = FanovaImportanceEvaluator(n_trees=_NUM_TREES, seed=0)
    shares = get_param_importances(study, evaluator=evaluator, params=list(fields))
    return {field: float(share) for field, share in shares.items()}


def _as_linear(trial: FrozenTrial, fields: Sequence[str], value: float) -> FrozenTrial:
    """The trial with logarithms of fields on a log scale: Optuna's fANOVA averages plain values."""
    params: dict[str, Any] = {}
    distributions: dict[str, BaseDistribution] = {}
    for field in fields:
        params[field], distributions[field] = trial.params[field], trial.distributions[field]
        distribution = distributions[field]
        if isinstance(distribution, FloatDistribution | IntDistribution) and distribution.log:
            params[field] = math.log(params[field])
            distributions[field] = FloatDistribution(math.log(distribution.low), math.log(distribution.high))
    return optuna.trial.create_trial(
        state=TrialState.COMPLETE, value=float(value), params=params, distributions=distributions
    )
