"""`tfnas launch` of a file with a study."""

from pathlib import Path
from typing import TYPE_CHECKING

from experiments.console import say
from nas.foundation.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from experiments.places.storage import Storage
    from experiments.specs.study_grid import StudyPlan
    from experiments.studies.study_launch import StudyResult

_HOW_TO_CONTINUE = "interrupted; run the same command again to continue"


def study(
    plan: "StudyPlan",
    out: Path,
    console: "Console",
    *,
    dry_run: bool,
    status: bool,
    address: str | None,
    storage: "Storage | None",
) -> int:
    """Does what the options of `tfnas launch` say; returns the exit code."""
    from experiments.studies.study_launch import launch_study
    from experiments.studies.study_preview import print_study, print_study_status

    if dry_run:
        print_study(plan, out, console, address=address)
        return 0
    if status:
        print_study_status(plan, out, console)
        return 0
    try:
        result = launch_study(plan, out, console, address=address, storage=storage)
    except KeyboardInterrupt:
        say(console, _HOW_TO_CONTINUE)
        return 130
    _draw(result, out, console)
    return _print_result(result, console)


def _draw(result: "StudyResult", out: Path, console: "Console") -> None:
    """Draws the figures of the study, into the output folder and beside its run."""
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
    except (UserError, NothingToDrawError, MlflowException) as missing:
        say(console, f"figures of the study: not drawn: {str(missing).splitlines()[0]}")


def _print_result(result: "StudyResult", console: "Console") -> int:
    for number, reason in result.failed:
        say(console, f"failed: trial {number}: {reason}")
    pruned = f", {result.num_pruned} were pruned" if result.num_pruned else ""
    failed = f", {len(result.failed)} failed" if result.failed else ""
    say(console, f"{result.num_complete} points have values{pruned}{failed}")
    if result.best:
        say(console, f"the best ones, ready to launch: {result.best}")
    say(console, f"see the study with: optuna-dashboard {result.storage_url}")
    if result.num_undelivered:
        say(
            console,
            f"MLflow is still away: the records of {result.num_undelivered} searches wait on disk; run the "
            "same command again to deliver them",
        )
    if not result.is_done:
        say(console, _HOW_TO_CONTINUE)
        return 130
    return 1 if result.failed or result.num_undelivered else 0
