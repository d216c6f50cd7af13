"""Latency targets: one row per target and method."""

from analysis.measures.latency_error import TARGET, TOLERANCE_PERCENT, meets_target
from analysis.measures.measure import Numbers
from analysis.measures.run_measures import ABS_LATENCY_ERROR
from analysis.reading.experiment import Experiment
from analysis.reading.nothing_to_draw import NothingToDrawError, for_grids
from analysis.tables.result_table import (
    INTERVALS,
    Column,
    ResultTable,
    explain_measures,
    factor_columns,
    measure_columns,
    measures_of_table,
    summarize_measures,
)

_FIRST_FACTORS = (TARGET, "sampling", "depth", "elasticity")


@for_grids
def targets_table(experiment: Experiment, numbers: Numbers) -> ResultTable:
    """Makes a row for each latency target and setting of the other factors."""
    if TARGET not in experiment.factors:
        raise NothingToDrawError("the grid has only one latency target")
    first = [factor for factor in _FIRST_FACTORS if factor in experiment.factors]
    factors = [*first, *experiment.other_factors(*first)]
    measures = measures_of_table("targets", experiment.runs, numbers)
    rows = []
    for runs in experiment.by_setting(factors):
        num_met = sum(meets_target(numbers[run.run_id][ABS_LATENCY_ERROR.name]) for run in runs)
        means = summarize_measures(runs, measures, numbers)
        rows.append((*runs[0].setting(factors), len(runs), *means, num_met))
    return ResultTable(
        "targets",
        "Latency targets",
        f"Derived networks and their latency targets. Each number is the {INTERVALS}. "
        f"{explain_measures(measures)} Met: trials within {TOLERANCE_PERCENT:g} % of the target.",
        (
            *factor_columns(factors),
            Column("n", "n"),
            *measure_columns(measures),
            Column("num_targets_met", "met"),
        ),
        tuple(rows),
        experiment.runs,
    )
