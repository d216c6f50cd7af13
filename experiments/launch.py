"""From a spec to results: what is missing runs as Ray trials, and tracking is told."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout
from rich.console import Console

from experiments.callback import LaunchCallback
from experiments.cell_folder import CellFolder, RunDescription, find_cell_folders
from experiments.console import say
from experiments.delivery import Delivery
from experiments.grid import Cell, Draft, draft_cells, make_cells
from experiments.plan import CellState, cell_states
from experiments.preparation import Preparation
from experiments.progress import Progress
from experiments.ray_session import local_ray, num_cores
from experiments.spec import ExperimentSpec, Resources, load_spec
from experiments.tracking import Tracker
from experiments.trial import run_trial
from nas.errors import UserError

_MAX_PROCESS_DEATHS = 3
"""How often Ray starts a trial again whose process died (killed, out of memory)."""

_PATIENCE_S = 60.0
"""How long a launch that is done waits for a tracking store that is away."""


@dataclass(frozen=True)
class LaunchResult:
    """How the cells of a grid ended, after a launch.

    Attributes:
        failed: cells and reasons.
        interrupted: cells to be continued by the next launch.
    """

    finished: list[Cell]
    failed: list[tuple[Cell, str]]
    interrupted: list[Cell]
    tracking_uri: str


@dataclass(frozen=True)
class Grid:
    """A YAML file whose every field is checked; its cells may still need a table to be measured.

    Args:
        path: of the file.
    """

    path: Path
    spec: ExperimentSpec
    drafts: list[Draft]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads and checks a YAML file.

        Raises:
            UserError: names file, field, value and remedy.
        """
        spec = load_spec(path)
        _check_resources(spec.resources, str(path))
        return cls(path, spec, draft_cells(spec, path))

    def cells(self, out: Path, console: Console) -> list[Cell]:
        """The cells; measures a lookup table into the output folder if need be.

        Raises:
            UserError: a table or images are missing, or a target is out of reach.
        """
        for field in _fields_without_effect(self.drafts):
            say(console, f"{self.path}: warning: {field} has no effect in any of these searches")
        return make_cells(
            self.drafts, Preparation(out, str(self.path), partial(say, console)), str(self.path)
        )


def launch(path: Path, out: Path, console: Console, *, retry_failed: bool = False) -> LaunchResult:
    """Runs the cells of a YAML file that are not done yet.

    Args:
        out: output folder; made if it is missing.
        retry_failed: whether cells that failed before are tried again.

    Raises:
        UserError: the file is wrong, or another launch into the folder is running.
    """
    out = out.resolve()
    grid = Grid.load(path)
    with _only_launch_into(out):
        cells = grid.cells(out, console)
        tracker = Tracker(grid.spec.experiment, out)
        _close_cut_off_attempts(out)
        tracker.close_dead_launches()
        delivery = Delivery(tracker, partial(say, console))
        for folder in find_cell_folders(out):
            delivery.notify(folder)
        states = cell_states(cells, tracker.cells(), out)
        to_run = [state for state in states if state.is_to_run(retry_failed)]
        _print_plan(states, to_run, console)
        if to_run:
            _run(grid, out, [state.cell for state in to_run], tracker, delivery, console)
        undelivered = delivery.close(_PATIENCE_S)
        if undelivered:
            say(
                console,
                f"MLflow is still away: the records of {len(undelivered)} searches wait in {out / 'cells'}; "
                "the next launch delivers them",
            )
        return _result(cell_states(cells, tracker.cells() if not undelivered else {}, out), tracker.uri)


def _run(
    grid: Grid, out: Path, cells: list[Cell], tracker: Tracker, delivery: Delivery, console: Console
) -> None:
    launch_id = tracker.start_launch(f"launch {datetime.now():%Y-%m-%d %H:%M:%S}", grid.path)
    folders = {cell.hash: CellFolder.of(out, cell) for cell in cells}
    for cell in cells:
        folders[cell.hash].describe(RunDescription.of(cell))
    num_done = len(grid.drafts) - len(cells)
    with Progress(console, cells, num_done, num_parallel(grid.spec.resources, len(cells))) as progress:
        callback = LaunchCallback(cells, folders, launch_id, progress, delivery)
        try:
            _run_trials(grid.spec.resources, cells, folders, out, callback)
        finally:
            outcomes = callback.close()
    status = "KILLED" if "KILLED" in outcomes else "FAILED" if "FAILED" in outcomes else "FINISHED"
    tracker.end_launch(launch_id, status)


def _run_trials(
    resources: Resources,
    cells: list[Cell],
    folders: dict[str, CellFolder],
    out: Path,
    callback: LaunchCallback,
) -> None:
    with local_ray():
        from ray import tune

        occupied = {"cpu": resources.cpus_per_trial, "gpu": resources.gpus_per_trial}
        params = [_trial_params(cell, folders[cell.hash]) for cell in cells]
        tuner = tune.Tuner(
            tune.with_resources(run_trial, occupied),
            param_space={"search": tune.grid_search(params)},
            tune_config=tune.TuneConfig(
                max_concurrent_trials=resources.max_concurrent_trials,
                # A fresh process costs seconds, for importing torch.
                reuse_actors=True,
                trial_dirname_creator=lambda trial: Path(trial.config["search"]["folder"]).name,
            ),
            run_config=tune.RunConfig(
                storage_path=str(out / "ray"),
                verbose=0,
                callbacks=[callback],
                failure_config=tune.FailureConfig(max_failures=_MAX_PROCESS_DEATHS),
            ),
        )
        tuner.fit()


def _trial_params(cell: Cell, folder: CellFolder) -> dict[str, Any]:
    return {"cell": cell.hash, "folder": str(folder.path), "config": cell.config.model_dump(mode="json")}


def num_parallel(resources: Resources, num_cells: int) -> int:
    """How many trials run at a time."""
    by_cores = num_cores() // resources.cpus_per_trial
    return max(min(by_cores, resources.max_concurrent_trials or by_cores, num_cells), 1)


def _check_resources(resources: Resources, where: str) -> None:
    if resources.cpus_per_trial > num_cores():
        raise UserError(
            f"{where}: resources.cpus_per_trial: {resources.cpus_per_trial}; this machine has {num_cores()} "
            "cores; lower it"
        )


def _fields_without_effect(drafts: list[Draft]) -> list[str]:
    """Fields that were set and that no cell heeds."""
    ineffective = [set(draft.config.ineffective_fields()) for draft in drafts]
    return sorted(set.intersection(*ineffective))


def _close_cut_off_attempts(out: Path) -> None:
    """Ends, as interrupted, what a launch that was killed could not end itself."""
    for folder in find_cell_folders(out):
        if folder.journal.events and folder.journal.end is None:
            folder.journal.finish("KILLED")


def _print_plan(states: list[CellState], to_run: list[CellState], console: Console) -> None:
    counts = {
        name: sum(state.state == name for state in states)
        for name in ("finished", "failed", "interrupted", "missing")
    }
    said = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    say(console, f"{len(states)} searches: {said}; {len(to_run)} to run")
    for state in states:
        if state.state == "interrupted":
            say(console, f"{state.cell.name}: continues after epoch {state.num_epochs}")
        elif state.state == "missing" and state.reason:
            say(console, f"{state.cell.name}: runs anew; {state.reason}")


def _result(states: list[CellState], tracking_uri: str) -> LaunchResult:
    return LaunchResult(
        finished=[state.cell for state in states if state.state == "finished"],
        failed=[(state.cell, state.reason) for state in states if state.state == "failed"],
        interrupted=[state.cell for state in states if state.state in ("interrupted", "missing")],
        tracking_uri=tracking_uri,
    )


@contextmanager
def _only_launch_into(out: Path) -> Iterator[None]:
    lock = FileLock(out / ".lock")
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"--out: {out}: another launch is running into it; wait for it, or choose another folder"
        ) from None
    except OSError as error:
        raise UserError(
            f"--out: {out}: cannot write there: {error.strerror}; choose another folder"
        ) from None
    try:
        yield
    finally:
        lock.release()
