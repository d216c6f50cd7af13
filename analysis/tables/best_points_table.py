"""The best points of a study."""

import math

from analysis.measures.measure import Numbers
from analysis.reading.captions import count
from analysis.reading.experiment import Experiment
from analysis.reading.nothing_to_draw import NothingToDrawError, OutOfPlaceError
from analysis.reading.values import Value
from analysis.tables.result_table import Column, ResultTable, factor_columns


def best_points_table(experiment: Experiment, numbers: Numbers) -> ResultTable:
    """Makes a row for each point of the Pareto front, or for the best points of a single objective."""
    study = experiment.study
    if study is None:
        raise OutOfPlaceError("the experiment has no study")
    if study.complete.empty:
        raise NothingToDrawError("no point of the study has values")
    best = study.best()
    metrics = [one.metric for one in study.objectives]
    fields = [one.name for one in study.fields]
    rows = [
        (
            int(row["number"]),
            *(float(row[name]) for name in metrics),
            *(_setting(row[name]) for name in fields),
        )
        for row in best.to_dict("records")
    ]
    which = "The Pareto front of the objectives" if len(metrics) > 1 else "The best points"
    return ResultTable(
        "study-best",
        "Best points of the study",
        f"{which}, among {count(len(study.complete), 'point')}. Values are {study.seeds_text}. They look "
        "better than they are, because they were chosen by these values.",
        (
            Column("number", "trial"),
            *(Column(name, name.replace("_", " "), 4) for name in metrics),
            *factor_columns(fields),
        ),
        tuple(rows),
        tuple(
            run
            for run in experiment.study_runs
            if any(run.name.startswith(f"trial-{number}-") for number in best["number"])
        ),
    )


def _setting(value: Value) -> Value:
    """A field's value; None if the point did not vary it."""
    return None if isinstance(value, float) and math.isnan(value) else value
