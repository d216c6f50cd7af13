"""Launch of a study: searches run until its budget is spent, and MLflow receives the results."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from mlflow.exceptions import MlflowException
from optuna.exceptions import OptunaError
from optuna.trial import TrialState
from rich.console import Console
from sqlalchemy.exc import SQLAlchemyError

from experiments.cells.cell_folder import find_cell_folders, folders_of_experiment
from experiments.console import say
from experiments.launching.grid_launch import HASTE_S, PATIENCE_S, Work, close_cut_off_attempts, run_trials
from experiments.launching.launch_lock import only_user_of
from experiments.launching.progress import Progress
from experiments.launching.signals import remembering_ctrl_c
from experiments.launching.table_check import check_tables
from experiments.places.storage import Storage
from experiments.specs.preparation import Preparation
from experiments.specs.study_grid import StudyGrid
from experiments.specs.study_spec import Study
from experiments.studies.points import FAILURE, Points
from experiments.studies.samplers import make_pruner
from experiments.studies.study_results import write_results
from experiments.studies.study_search import StudyCallback, StudyScheduler, StudySearch
from experiments.tracking.delivery import Delivery
from experiments.tracking.saved_views import LAUNCHES, SavedView, save_view
from experiments.tracking.store_access import require_server, tracking_uri
from experiments.tracking.tracked_cells import read_tracked_cells
from experiments.tracking.tracker import Tracker
from nas.foundation.errors import UserError, first_line
from nas.foundation.uris import redact, sqlite_path, sqlite_uri

_DEFINITION = "tfnas.definition"

optuna.logging.set_verbosity(optuna.logging.WARNING)
"""Optuna would report every trial, beside our own progress."""


@dataclass(frozen=True)
class StudyResult:
    """A study after a launch.

    Attributes:
        num_complete: number of points with a value.
        num_pruned: number of points that ended early.
        failed: numbers of points without a value, and why.
        num_undelivered: searches whose records MLflow lacks in part; the next launch delivers them.
        run_id: the study's run in MLflow.
        storage_url: without user and password.
        is_done: whether the budget is spent and no point is open.
        best: the file of the best points, if any point has a value.
    """

    experiment: str
    num_complete: int
    num_pruned: int
    failed: list[tuple[int, str]]
    is_done: bool
    num_undelivered: int
    tracking_uri: str
    experiment_id: str
    run_id: str
    storage_url: str
    best: Path | None


def launch_study(
    plan: StudyGrid,
    out: Path,
    console: Console,
    *,
    address: str | None = None,
    storage: Storage | None = None,
    even_if_busy: bool = False,
) -> StudyResult:
    """Runs or resumes a study until its budget is spent.

    Args:
        out: output folder on this machine; created if it is missing.
        address: of a Ray cluster, `HOST:PORT` or `auto`; None for this machine.
        storage: where trials keep checkpoints and artifacts; None for the output folder.
        even_if_busy: see `launch` of grids.

    Raises:
        UserError: the folder holds another study, another launch into it is running, or cluster, storage or
            tracking server cannot be used.
    """
    out = out.resolve()
    if address:
        require_server(tracking_uri(out))
    if storage:
        storage.check_writable()
    # Before anything is measured: stores that cannot be used must not cost that time.
    read_tracked_cells(plan.spec.experiment, out)
    read_study(plan, out)
    with remembering_ctrl_c(), only_user_of(out), plan.place(address) as place:
        # Looked at before a lookup table is measured, which takes minutes.
        read_tracked_cells(plan.spec.experiment, out)
        read_study(plan, out)
        report = partial(say, console)
        preparation = Preparation(out, place, str(plan.path), report, even_if_busy=even_if_busy)
        kinds = plan.check_reach(preparation)
        study = open_study(plan, out, plan.definition(kinds))
        tracker = Tracker(plan.spec.experiment, out)
        for view in (SavedView.of_cells("search", list(plan.study.space)), LAUNCHES):
            save_view(tracker.uri, tracker.experiment_id, view)
        folders = find_cell_folders(out, partial(say, console), storage)
        close_cut_off_attempts(folders)
        tracker.close_dead_launches()
        delivery = Delivery(tracker, partial(say, console))
        for folder in folders_of_experiment(folders, plan.spec.experiment):
            delivery.notify(folder)
        work = Work(plan, kinds, out, place, storage)
        points = Points(plan, study, work, preparation)
        points.tell_ended()
        run_id = tracker.open_study(
            plan.spec.experiment, plan.path.name, plan.spec.text, describe_study(plan.study)
        )
        _print_plan(points, console)
        patience_s = HASTE_S
        try:
            if points.num_open or not points.is_spent():
                check_tables(kinds, place, report)
                _run(points, run_id, delivery, console)
                # Ray only logs what a callback raises; here it is raised again.
                points.tell_ended()
            patience_s = PATIENCE_S
        finally:
            undelivered = delivery.close(patience_s)
            is_done = not points.num_open and points.is_spent()
            tracker.end_launch(run_id, "FINISHED" if is_done else "KILLED")
        best = write_results(plan, study, kinds, out)
        result = _result(points, tracker, run_id, len(undelivered), out, best)
        _deliver_results(tracker, result, out, console)
        return result


def _run(points: Points, run_id: str, delivery: Delivery, console: Console) -> None:
    plan, study = points.plan, points.plan.study
    at_a_time = plan.num_parallel(points.work.place, sys.maxsize)
    num_told = points.num_begun - points.num_open
    num_to_come = max((study.budget.num_trials or 0) - num_told, points.num_open)
    points.study.pruner = make_pruner(study, plan.drafts[0].config.num_warmup_epochs)
    num_seeds = len(plan.seeds)
    with Progress(
        console,
        [],
        num_told * num_seeds,
        at_a_time,
        num_to_come * num_seeds,
        explains_health=False,
    ) as progress:
        callback = StudyCallback(points, run_id, progress, delivery)
        try:
            run_trials(
                points.work,
                callback,
                search_alg=StudySearch(points, callback),
                scheduler=StudyScheduler(points) if study.pruning != "none" else None,
                # As many as the searcher hands out.
                num_samples=-1,
                # Also keeps Ray from asking ahead: later points know more.
                max_concurrent_trials=at_a_time,
            )
        finally:
            callback.close()


def storage_url(plan: StudyGrid, out: Path) -> str:
    """URL of the storage of a study."""
    return plan.study.storage or sqlite_uri(out.resolve() / "study.db")


def show_storage(plan: StudyGrid, out: Path) -> str:
    """URL of the storage of a study, without user and password."""
    return redact(storage_url(plan, out))


def read_study(plan: StudyGrid, out: Path) -> optuna.Study | None:
    """The study in its storage; None if it has not begun.

    Raises:
        UserError: the storage cannot be used.
    """
    database = sqlite_path(storage_url(plan, out))
    if database is not None and not database.is_file():
        return None
    with _refuse_broken_storage(plan, out):
        try:
            return optuna.load_study(study_name=plan.spec.experiment, storage=storage_url(plan, out))
        except KeyError:
            return None


def open_study(plan: StudyGrid, out: Path, definition: dict[str, Any]) -> optuna.Study:
    """The study in its storage, created if there is none.

    Raises:
        UserError: the storage cannot be used, or holds another study of that name.
    """
    with _refuse_broken_storage(plan, out):
        study = optuna.create_study(
            storage=storage_url(plan, out),
            study_name=plan.spec.experiment,
            directions=[objective.direction for objective in plan.study.objectives],
            load_if_exists=True,
        )
        wanted = json.loads(
            json.dumps(definition | ({"output folder": str(out)} if plan.study.storage else {}))
        )
        stored = study.user_attrs.get(_DEFINITION)
        if stored is not None:
            # Studies from before results had a version are of version 1.
            stored = {"results version": 1} | stored
        if stored is None and not study.get_trials(deepcopy=False):
            study.set_user_attr(_DEFINITION, wanted)
            stored = wanted
    if stored is None:
        raise UserError(
            f"{plan.path}: study.storage: holds another study '{plan.spec.experiment}'; rename the experiment"
        )
    changed = [name for name in wanted if wanted[name] != stored.get(name)]
    if changed:
        raise UserError(
            f"{plan.path}: {', '.join(changed)}: changed since the study began, so new points would not be "
            "comparable; restore it, or start a new study with another experiment and --out"
        )
    return study


@contextmanager
def _refuse_broken_storage(plan: StudyGrid, out: Path) -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, OptunaError, ImportError, RuntimeError, ValueError) as error:
        reason = first_line(error)
        if plan.study.storage is None:
            raise UserError(
                f"{out / 'study.db'}: cannot use this storage of the study ({reason}); end the program that "
                "locks it, restore the file, or choose another --out"
            ) from None
        raise UserError(
            f"{plan.path}: study.storage: cannot use it ({reason}); check the URL, or remove it to "
            "use a file in the output folder"
        ) from None


def describe_study(study: Study) -> dict[str, str]:
    """The space and the objectives, a few words each."""
    space = {f"space.{field}": str(domain) for field, domain in study.space.items()}
    return space | {f"objective.{one.metric}": one.direction for one in study.objectives}


def _print_plan(points: Points, console: Console) -> None:
    budget = points.plan.study.budget
    num_told = points.num_begun - points.num_open
    limits = [f"{budget.num_trials} points"] if budget.num_trials is not None else []
    if budget.hours is not None:
        limits.append(f"{budget.hours:g} hours of searching, {points.searched_hours():.2g} used")
    resuming = f", {points.num_open} to resume" if points.num_open else ""
    say(console, f"Study of at most {' and '.join(limits)}: {num_told} points done{resuming}")


def _result(
    points: Points, tracker: Tracker, run_id: str, num_undelivered: int, out: Path, best: Path | None
) -> StudyResult:
    trials = points.study.get_trials(deepcopy=False)
    return StudyResult(
        experiment=points.plan.spec.experiment,
        num_complete=sum(trial.state == TrialState.COMPLETE for trial in trials),
        num_pruned=sum(trial.state == TrialState.PRUNED for trial in trials),
        failed=[
            (trial.number, trial.user_attrs.get(FAILURE, "unknown reason"))
            for trial in trials
            if trial.state == TrialState.FAIL
        ],
        is_done=not points.num_open and points.is_spent(),
        num_undelivered=num_undelivered,
        tracking_uri=tracker.uri,
        experiment_id=tracker.experiment_id,
        run_id=run_id,
        storage_url=show_storage(points.plan, out),
        best=best,
    )


def _deliver_results(tracker: Tracker, result: StudyResult, out: Path, console: Console) -> None:
    metrics = {
        "num_complete": result.num_complete,
        "num_pruned": result.num_pruned,
        "num_failed": len(result.failed),
    }
    files = [*sorted((out / "study").iterdir()), *([result.best] if result.best else [])]
    try:
        tracker.add_files(result.run_id, files)
        tracker.add_metrics(result.run_id, metrics)
    except (MlflowException, OSError) as error:
        reason = first_line(error)
        say(
            console,
            f"MLflow is unreachable ({reason}); results are kept in {out}: rerun the command to deliver them",
        )
