"""The ablation: one row per setting."""

from analysis.measures.measure import Numbers
from analysis.reading.captions import count
from analysis.reading.experiment import Experiment
from analysis.reading.nothing_to_draw import for_grids
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


@for_grids
def ablation_table(experiment: Experiment, numbers: Numbers) -> ResultTable:
    """Makes a row for each setting, with means over seeds."""
    measures = measures_of_table("ablation", experiment.runs, numbers)
    rows = [
        (*runs[0].setting(experiment.factors), len(runs), *summarize_measures(runs, measures, numbers))
        for runs in experiment.by_setting()
    ]
    return ResultTable(
        "ablation",
        "Ablation",
        f"Each number is the {INTERVALS}. {explain_measures(measures)} "
        f"{count(len(experiment.runs), 'trial')}.",
        (*factor_columns(experiment.factors), Column("n", "n"), *measure_columns(measures)),
        tuple(rows),
        experiment.runs,
    )
