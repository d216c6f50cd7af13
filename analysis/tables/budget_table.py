"""What each setting cost: weight steps, evaluations, seconds."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.measures.measure import Numbers
from analysis.reading.experiment import Experiment
from analysis.reading.nothing_to_draw import OutOfPlaceError, for_grids
from analysis.reading.run import Run
from analysis.tables.result_table import Column, ResultTable, factor_columns

_FACTOR = "method"
_WEIGHT_STEPS = "num_weight_steps"


@for_grids
def budget_table(experiment: Experiment, numbers: Numbers) -> ResultTable:
    """Makes a row for each method and setting of the other factors."""
    if _FACTOR not in experiment.factors:
        raise OutOfPlaceError("the grid has only one method")
    factors = [_FACTOR, *experiment.other_factors(_FACTOR)]
    rows = [
        (
            *runs[0].setting(factors),
            len(runs),
            _mean_sum(runs, _WEIGHT_STEPS),
            float(np.mean([_num_evaluations(run) for run in runs])),
            _mean_sum(runs, "epoch_seconds"),
        )
        for runs in experiment.by_setting(factors)
    ]
    return ResultTable(
        "budget",
        "Budgets",
        "What a search took, mean over seeds: steps that train the supernet's weights, networks evaluated "
        "with these weights, and seconds. Epochs that were shared count in each search.",
        (
            *factor_columns(factors),
            Column("n", "n"),
            Column(_WEIGHT_STEPS, "weight steps", 0),
            Column("num_evaluations", "evaluations", 0),
            Column("seconds", "seconds", 0),
        ),
        tuple(rows),
        experiment.runs,
    )


def _mean_sum(runs: Sequence[Run], column: str) -> float:
    """Mean over runs of the sum over epochs; NaN if an epoch of one of them lacks it.

    Rounds of evaluation have no weight steps.
    """
    sums = []
    for run in runs:
        values = pd.Series([np.nan]) if run.epochs is None or column not in run.epochs else run.epochs[column]
        if run.evaluations is not None and column == _WEIGHT_STEPS:
            values = values.drop(run.evaluations["epoch"].unique())
        sums.append(values.sum(skipna=False))
    return float(np.mean(sums))


def _num_evaluations(run: Run) -> int:
    return 0 if run.evaluations is None else len(run.evaluations)
