"""From a study's YAML file to results: what its budget still allows runs, and tracking is told."""

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
from optuna.trial import TrialState
from rich.console import Console
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from experiments.cells.cell_folder import find_cell_folders
from experiments.console import say
from experiments.launching.grid_launch import HASTE_S, PATIENCE_S, Work, close_cut_off_attempts, run_trials
from experiments.launching.launch_lock import only_launch_into
from experiments.launching.progress import Progress
from experiments.places.storage import Storage
from experiments.specs.preparation import Preparation
from experiments.specs.study_grid import StudyGrid
from experiments.specs.study_spec import Study
from experiments.studies.points import FAILURE, Points
from experiments.studies.samplers import make_pruner
from experiments.studies.study_results import write_results
from experiments.studies.study_search import StudyCallback, StudyScheduler, StudySearch
from experiments.tracking.delivery import Delivery
from experiments.tracking.tracker import Tracker, require_server, tracking_uri
from nas.foundation.errors import UserError

_DEFINITION = "tfnas.definition"

optuna.logging.set_verbosity(optuna.logging.WARNING)
"""It reports every trial, beside our own progress."""


@dataclass(frozen=True)
class StudyResult:
    """How a study stands after a launch.

    Attributes:
        num_complete: points with a value.
        num_pruned: points ended early.
        failed: numbers of points without a value, and why.
        num_undelivered: searches of which tracking does not know all yet; the next launch tells it.
        run_id: the study's run in MLflow.
        storage_url: without a password.
        is_done: whether the budget is used up and no point is left open.
        best: the file of the best points, if any has a value.
    """

    experiment: str
    num_complete: int
    num_pruned: int
    failed: list[tuple[int, str]]
    is_done: bool
    num_undelivered: int
    tracking_uri: str
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
) -> StudyResult:
    """Goes on with a study until its budget is used up.

    Args:
        out: output folder of this machine; made if it is missing.
        address: of a Ray cluster, `HOST:PORT` or `auto`; None for this machine.
        storage: where trials put checkpoints and artifacts; None for the output folder.

    Raises:
        UserError: the study in the folder is another one, another launch into it is running, or cluster,
            storage or tracking cannot be used.
    """
    out = out.resolve()
    if address:
        require_server(tracking_uri(out))
    if storage:
        storage.check_writable()
    with only_launch_into(out), plan.place(address) as place:
        preparation = Preparation(out, place, str(plan.path), partial(say, console))
        kinds = plan.check_reach(preparation)
        study = open_study(plan, out, plan.definition(kinds))
        tracker = Tracker(plan.spec.experiment, out)
        close_cut_off_attempts(out)
        tracker.close_dead_launches()
        delivery = Delivery(tracker, partial(say, console))
        for folder in find_cell_folders(out):
            delivery.notify(folder)
        work = Work(plan, [*kinds], out, place, storage)
        points = Points(plan, study, work, preparation)
        points.tell_ended()
        run_id = tracker.open_study(plan.spec.experiment, plan.path, describe_study(plan.study))
        _print_plan(points, console)
        patience_s = HASTE_S
        try:
            if points.num_open or not points.is_spent():
                _run(points, run_id, delivery, console)
                # Should a callback have failed, Ray said so in its log only: here it would be raised.
                points.tell_ended()
            patience_s = PATIENCE_S
        finally:
            undelivered = delivery.close(patience_s)
            is_done = not points.num_open and points.is_spent()
            tracker.end_launch(run_id, "FINISHED" if is_done else "KILLED")
        best = write_results(plan, study, kinds, out)
        result = _result(points, tracker.uri, run_id, len(undelivered), out, best)
        _deliver_results(tracker, result, out, console)
        return result


def _run(points: Points, run_id: str, delivery: Delivery, console: Console) -> None:
    plan, study = points.plan, points.plan.study
    at_a_time = plan.num_parallel(points.work.place, sys.maxsize)
    num_told = points.num_begun - points.num_open
    num_to_come = max((study.budget.num_trials or 0) - num_told, points.num_open)
    points.study.pruner = make_pruner(study, plan.drafts[0].config.num_warmup_epochs)
    num_seeds = len(plan.seeds)
    with Progress(console, [], num_told * num_seeds, at_a_time, num_to_come * num_seeds) as progress:
        callback = StudyCallback(points, run_id, progress, delivery)
        try:
            run_trials(
                points.work,
                callback,
                search_alg=StudySearch(points, callback),
                scheduler=StudyScheduler(points) if study.pruning != "none" else None,
                # As many as the searcher has.
                num_samples=-1,
                # Also keeps Ray from asking ahead, for points that could know more.
                max_concurrent_trials=at_a_time,
            )
        finally:
            callback.close()


def storage_url(plan: StudyGrid, out: Path) -> str:
    """Where a study is stored."""
    return plan.study.storage or f"sqlite:///{out.resolve() / 'study.db'}"


def show_storage(plan: StudyGrid, out: Path) -> str:
    """Where a study is stored, without a password."""
    return make_url(storage_url(plan, out)).render_as_string(hide_password=True)


def read_study(plan: StudyGrid, out: Path) -> optuna.Study | None:
    """The study as it is stored; None if it has not begun.

    Raises:
        UserError: the storage cannot be used.
    """
    if plan.study.storage is None and not (out / "study.db").is_file():
        return None
    with _refuse_broken_storage(plan):
        try:
            return optuna.load_study(study_name=plan.spec.experiment, storage=storage_url(plan, out))
        except KeyError:
            return None


def open_study(plan: StudyGrid, out: Path, definition: dict[str, Any]) -> optuna.Study:
    """The study, made if there is none.

    Raises:
        UserError: the storage cannot be used, or the study in it is another one.
    """
    with _refuse_broken_storage(plan):
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
            f"{plan.path}: study.storage: holds a study '{plan.spec.experiment}' of another kind; "
            "choose another name for the experiment"
        )
    changed = [name for name in wanted if wanted[name] != stored.get(name)]
    if changed:
        raise UserError(
            f"{plan.path}: {', '.join(changed)}: changed since the study began, so that its points would not "
            "compare with further ones; restore it, or begin a new study: another experiment and --out"
        )
    return study


@contextmanager
def _refuse_broken_storage(plan: StudyGrid) -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, ArgumentError, ImportError, RuntimeError) as error:
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise UserError(
            f"{plan.path}: study.storage: cannot use it ({reason}); check the URL, or remove it for a "
            "file in the output folder"
        ) from None


def describe_study(study: Study) -> dict[str, str]:
    """The space and the objectives in a few words each."""
    space = {f"space.{field}": str(domain) for field, domain in study.space.items()}
    return space | {f"objective.{one.metric}": one.direction for one in study.objectives}


def _print_plan(points: Points, console: Console) -> None:
    budget = points.plan.study.budget
    num_told = points.num_begun - points.num_open
    limits = [f"{budget.num_trials} points"] if budget.num_trials is not None else []
    if budget.hours is not None:
        limits.append(f"{budget.hours:g} hours of searching, {points.searched_hours():.2g} used")
    going_on = f", {points.num_open} to be gone on with" if points.num_open else ""
    say(console, f"Study of at most {' and '.join(limits)}: {num_told} points done{going_on}")


def _result(
    points: Points, tracking_uri: str, run_id: str, num_undelivered: int, out: Path, best: Path | None
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
        tracking_uri=tracking_uri,
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
        reason = (str(error) or type(error).__name__).splitlines()[0]
        say(
            console,
            f"MLflow is away ({reason}); the study's results wait in {out}; launch again to deliver them",
        )
