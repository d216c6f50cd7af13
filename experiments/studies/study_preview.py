"""Preview and status of a study; neither starts anything."""

import sys
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Table

from experiments.console import format_count, format_duration, say
from experiments.launching.dry_run import locked, print_images, print_unmeasured, time_all
from experiments.specs.preparation import Preparation
from experiments.specs.study_grid import StudyGrid
from experiments.studies.points import FAILURE, finished_trials, searched_hours
from experiments.studies.study_launch import describe_study, read_study, show_storage


def print_study(
    plan: StudyGrid,
    out: Path,
    console: Console,
    *,
    address: str | None = None,
    measure: bool = False,
    even_if_busy: bool = False,
) -> None:
    """Prints the space, the objectives and the rest of the budget.

    Args:
        address: of a Ray cluster; None for this machine.
        measure: whether to measure missing lookup tables and to estimate the cost, see `print_dry_run`.
        even_if_busy: see `launch_study`.

    Raises:
        UserError: a target is out of reach.
    """
    table = Table("what", "values")
    for name, text in describe_study(plan.study).items():
        table.add_row(name, text)
    console.print(table)
    study = read_study(plan, out)
    num_told = len(list(finished_trials(study))) if study else 0
    searches = format_count(len(plan.seeds), "search", "searches")
    summary = f"{format_count(num_told, 'point')} done; a point has {searches}"
    with plan.place(address) as place, locked(out if measure else None):
        report = partial(say, console)
        preparation = Preparation(out, place, str(plan.path), report, even_if_busy=even_if_busy)
        at_a_time = plan.num_parallel(place, len(plan.seeds) * (plan.study.budget.num_trials or sys.maxsize))
        if not measure:
            reach = plan.plan_reach(preparation)
            say(console, f"{summary}; {at_a_time} at a time")
            print_images(reach.cells, console)
            print_unmeasured(reach, reach.cells, console)
            return
        kinds = plan.check_reach(preparation)
        costs = time_all(kinds, place, console)
        print_images(kinds, console)
    search_s = [costs[cell.cost_key].left_s(cell.phases, 0, warms_up=True) for cell in kinds]
    point_s = sum(search_s) / len(search_s) * len(plan.seeds)
    say(console, f"{summary} and costs about {format_duration(point_s)} of searching; {at_a_time} at a time")
    budget = plan.study.budget
    limits_s = [(budget.hours - searched_hours(out)) * 3600] if budget.hours else []
    if budget.num_trials is not None:
        limits_s.append((budget.num_trials - num_told) * point_s)
    left = format_duration(max(min(limits_s), 0) / at_a_time)
    say(console, f"The budget lasts about {left} more, estimated by timing a few steps of extreme points")


def print_study_status(plan: StudyGrid, out: Path, console: Console) -> None:
    """Prints the state of each point."""
    study = read_study(plan, out)
    metrics = [objective.metric for objective in plan.study.objectives]
    table = Table("point", "state", *metrics, "values", "reason")
    for trial in study.get_trials(deepcopy=False) if study else []:
        values = (
            [f"{value:.4g}" for value in trial.values]
            if trial.state == TrialState.COMPLETE
            else [""] * len(metrics)
        )
        reason = trial.user_attrs.get(FAILURE, "")
        table.add_row(str(trial.number), _state(trial), *values, _describe(trial), reason)
    console.print(table)
    if study:
        say(console, f"explore it with: optuna-dashboard {quote(show_storage(plan, out))}")


def describe_points(plan: StudyGrid, out: Path) -> dict[str, Any]:
    """The points of a study as JSON."""
    study = read_study(plan, out)
    metrics = [objective.metric for objective in plan.study.objectives]
    return {
        "experiment": plan.spec.experiment,
        "out": str(out),
        "storage": show_storage(plan, out),
        "points": [
            {
                "number": trial.number,
                "state": _state(trial),
                "params": trial.params,
                "values": dict(zip(metrics, trial.values, strict=True)) if trial.values else {},
                "reason": trial.user_attrs.get(FAILURE, ""),
            }
            for trial in (study.get_trials(deepcopy=False) if study else [])
        ],
    }


def _state(trial: FrozenTrial) -> str:
    names = {TrialState.RUNNING: "open", TrialState.FAIL: "failed"}
    return names.get(trial.state, trial.state.name.lower())


def _describe(trial: FrozenTrial) -> str:
    return ", ".join(
        f"{field} {value:.3g}" if isinstance(value, float) else f"{field} {value}"
        for field, value in trial.params.items()
    )
