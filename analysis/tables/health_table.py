"""Health: one row per setting, with the searches that pass each check."""

from collections.abc import Sequence

from analysis.measures.measure import Numbers
from analysis.measures.search_health import CHECKS, find_check, names_of_checks
from analysis.reading.captions import left_out_note
from analysis.reading.experiment import Experiment
from analysis.reading.nothing_to_draw import NothingToDrawError, for_grids
from analysis.reading.run import Run
from analysis.tables.result_table import Column, ResultTable, factor_columns


@for_grids
def health_table(experiment: Experiment, numbers: Numbers) -> ResultTable:
    """Makes a row for each setting, with the number of searches that pass each check."""
    runs = tuple(run for run in experiment.runs if run.health is not None)
    if not runs:
        raise NothingToDrawError("no run with a health record")
    names = names_of_checks(runs)
    rows = [
        (
            *of_setting[0].setting(experiment.factors),
            len(of_setting),
            sum(run.is_healthy is True for run in of_setting),
            *(_num_passes(of_setting, name) for name in names),
        )
        for of_setting in experiment.by_setting(runs=runs)
    ]
    explained = "; ".join(f"{name}: {CHECKS[name]}" for name in names if name in CHECKS)
    return ResultTable(
        "health",
        "Health by setting",
        "How many searches pass each check, of those that it applies to. Healthy: searches that pass all of "
        f"them. {explained[:1].upper()}{explained[1:]}."
        f"{left_out_note(experiment.runs, runs, 'without a health record')}",
        (
            *factor_columns(experiment.factors),
            Column("n", "n"),
            Column("num_healthy", "healthy"),
            *(Column(name, name) for name in names),
        ),
        tuple(rows),
        runs,
    )


def _num_passes(runs: Sequence[Run], name: str) -> str | None:
    """`3/8`: of 8 runs with the check, 3 pass it; None if no run has it."""
    checks = [check for run in runs if (check := find_check(run, name)) is not None]
    return f"{sum(check.is_healthy for check in checks)}/{len(checks)}" if checks else None
