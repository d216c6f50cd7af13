"""`tfnas launch` of a file with a study."""

import json
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import click

from experiments.cli.launches.launch_command import HOW_TO_RESUME
from experiments.console import say
from nas.foundation.errors import UserError, first_line

if TYPE_CHECKING:
    from rich.console import Console

    from experiments.places.storage import Storage
    from experiments.specs.study_grid import StudyGrid
    from experiments.studies.study_launch import StudyResult


def study(
    plan: "StudyGrid",
    out: Path,
    console: "Console",
    *,
    dry_run: bool,
    status: bool,
    address: str | None,
    storage: "Storage | None",
    measure: bool,
    even_if_busy: bool,
    as_json: bool,
) -> int:
    """Runs, previews or shows a study, as the options of `tfnas launch` ask; returns the exit code."""
    from experiments.studies.study_launch import launch_study
    from experiments.studies.study_preview import describe_points, print_study, print_study_status

    if dry_run:
        print_study(plan, out, console, address=address, measure=measure, even_if_busy=even_if_busy)
        return 0
    if status:
        if as_json:
            click.echo(json.dumps(describe_points(plan, out), indent=1))
        else:
            print_study_status(plan, out, console)
        return 0
    try:
        result = launch_study(plan, out, console, address=address, storage=storage, even_if_busy=even_if_busy)
    except KeyboardInterrupt:
        say(console, HOW_TO_RESUME)
        return 130
    _draw(result, out, console)
    if as_json:
        click.echo(json.dumps(describe_points(plan, out), indent=1))
    return _print_result(result, console)


def _draw(result: "StudyResult", out: Path, console: "Console") -> None:
    """Draws the figures of the study into the output folder, and adds them to its run."""
    from mlflow.exceptions import MlflowException

    from analysis.figures.ink.figure_files import write_drawing
    from analysis.figures.study_figure import study_drawings
    from analysis.reading.experiment_reader import read_experiment
    from analysis.reading.nothing_to_draw import NothingToDrawError
    from experiments.tracking.tracker import Tracker

    try:
        experiment = read_experiment(result.experiment, result.tracking_uri)
        drawings = study_drawings(experiment)
        paths = [path for one in drawings for path in write_drawing(one, experiment, out / "figures")]
        Tracker(result.experiment, out.resolve()).add_files(result.run_id, paths, "figures")
    except (UserError, NothingToDrawError, MlflowException, OSError) as missing:
        say(console, f"figures of the study: not drawn: {first_line(missing)}")


def _print_result(result: "StudyResult", console: "Console") -> int:
    from analysis.reading.mlflow_pages import how_to_look

    for number, reason in result.failed:
        say(console, f"failed: point {number}: {reason}")
    pruned = f", {result.num_pruned} were pruned" if result.num_pruned else ""
    failed = f", {len(result.failed)} failed" if result.failed else ""
    say(console, f"{result.num_complete} points have values{pruned}{failed}")
    if result.best:
        say(console, f"best points, ready to launch: {result.best}")
    for line in how_to_look(result.tracking_uri, result.experiment_id, "search"):
        say(console, f"the searches: {line}")
    say(console, f"explore the study with: optuna-dashboard {quote(result.storage_url)}")
    if result.num_undelivered:
        say(
            console,
            f"MLflow is still unreachable; the records of {result.num_undelivered} searches are kept: "
            "rerun the command to deliver them",
        )
    if not result.is_done:
        say(console, HOW_TO_RESUME)
        return 130
    return 1 if result.failed or result.num_undelivered else 0
