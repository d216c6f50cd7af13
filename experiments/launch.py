"""From a spec to results: what is missing runs as Ray trials, and tracking is told."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console

from experiments.callback import LaunchCallback
from experiments.cell import Cell
from experiments.cell_folder import CellFolder, RunDescription, find_cell_folders
from experiments.console import say
from experiments.delivery import Delivery
from experiments.grid import Grid, SearchGrid
from experiments.plan import CellState, cell_states
from experiments.progress import Progress
from experiments.ray_session import Place
from experiments.spec import TrainingSpec, load_spec
from experiments.storage import Storage
from experiments.tracking import Tracker, require_server, tracking_uri
from experiments.training_grid import TrainingGrid
from experiments.trial import run_trial
from nas.errors import UserError

_MAX_PROCESS_DEATHS = 3
"""How often Ray starts a trial again whose process died (killed, out of memory)."""

_REUSES_WORKERS = True
"""Whether a process runs trial after trial: a fresh one costs seconds, for importing torch."""

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

    @property
    def cells(self) -> list[Cell]:
        """All cells of the grid."""
        return [*self.finished, *(cell for cell, _ in self.failed), *self.interrupted]


def load_grid(path: Path) -> Grid:
    """Reads and checks a YAML file, of searches or of trainings.

    Raises:
        UserError: names file, field, value and remedy.
    """
    spec = load_spec(path)
    return TrainingGrid.of(spec, path) if isinstance(spec, TrainingSpec) else SearchGrid.of(spec, path)


def load_training_grid(path: Path, experiment: str) -> TrainingGrid:
    """Reads and checks a YAML file of trainings that are to follow searches.

    Args:
        experiment: the searches'.

    Raises:
        UserError: the file is wrong, or of another experiment.
    """
    grid = load_grid(path)
    if not isinstance(grid, TrainingGrid):
        raise UserError(f"{path}: architectures: missing; --then-train takes a file of trainings")
    if grid.spec.experiment != experiment:
        raise UserError(
            f"{path}: experiment: '{grid.spec.experiment}'; must be the searches', '{experiment}', so that "
            "figures and report see both"
        )
    return grid


def launch(
    grid: Grid,
    out: Path,
    console: Console,
    *,
    retry_failed: bool = False,
    address: str | None = None,
    storage: Storage | None = None,
) -> LaunchResult:
    """Runs the cells of a grid that are not done yet.

    Args:
        out: output folder of this machine; made if it is missing.
        retry_failed: whether cells that failed before are tried again.
        address: of a Ray cluster, `HOST:PORT` or `auto`; None for this machine.
        storage: where trials put checkpoints and artifacts; None for the output folder.

    Raises:
        UserError: what the cells need is missing, another launch into the folder is running, or
            cluster, storage or tracking cannot be used.
    """
    out = out.resolve()
    if address:
        require_server(tracking_uri(out))
    if storage:
        storage.check_writable()
    with _only_launch_into(out), grid.place(address) as place:
        cells = grid.cells(out, place, partial(say, console))
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
            to_do = _Work(grid, [state.cell for state in to_run], out, place, storage)
            _run(to_do, len(states) - len(to_run), tracker, delivery, console)
        undelivered = delivery.close(_PATIENCE_S)
        if undelivered:
            say(
                console,
                f"MLflow is still away: the records of {len(undelivered)} {cells[0].plural} wait in "
                f"{out / 'cells'}; the next launch delivers them",
            )
        return _result(cell_states(cells, tracker.cells() if not undelivered else {}, out), tracker.uri)


@dataclass(frozen=True)
class _Work:
    """The cells that a launch runs, and where."""

    grid: Grid
    cells: list[Cell]
    out: Path
    place: Place
    storage: Storage | None

    def prepare_folders(self) -> dict[str, CellFolder]:
        """Makes every cell's folder, here and where its trials put their files."""
        folders = {cell.hash: CellFolder.of(self.out, cell) for cell in self.cells}
        for cell in self.cells:
            folder = folders[cell.hash]
            _check_same_storage(folder, self.storage)
            folder.describe(RunDescription.of(cell, self.storage))
            if self.storage:
                self.storage.cell(folder.path.name).make()
        return folders

    def trial_params(self, cell: Cell) -> dict[str, Any]:
        """What a trial is told; paths of this machine mean nothing to it."""
        return {
            "hash": cell.hash,
            "kind": cell.kind,
            "code": cell.code_version,
            "input": cell.input_name,
            "storage": (self.storage or Storage(str(self.out))).uri,
            "name": cell.folder_name,
            "config": cell.config.model_dump(mode="json"),
        }


def _run(work: _Work, num_done: int, tracker: Tracker, delivery: Delivery, console: Console) -> None:
    folders = work.prepare_folders()
    launch_id = tracker.start_launch(f"launch {datetime.now():%Y-%m-%d %H:%M:%S}", work.grid.path)
    num_parallel = work.grid.num_parallel(work.place, len(work.cells))
    with Progress(console, work.cells, num_done, num_parallel) as progress:
        callback = LaunchCallback(work.cells, folders, launch_id, progress, delivery)
        try:
            _run_trials(work, callback)
        finally:
            outcomes = callback.close()
    status = "KILLED" if "KILLED" in outcomes else "FAILED" if "FAILED" in outcomes else "FINISHED"
    tracker.end_launch(launch_id, status)


def _run_trials(work: _Work, callback: LaunchCallback) -> None:
    resources = work.grid.spec.resources
    with work.place.ray():
        from ray import tune

        sources = {cell.input_name: cell for cell in work.cells}
        inputs = {name: cell.load_input() for name, cell in sources.items()}
        trial = tune.with_parameters(run_trial, inputs=inputs)
        tuner = tune.Tuner(
            tune.with_resources(trial, tune.PlacementGroupFactory([work.place.bundle])),
            param_space={"cell": tune.grid_search([work.trial_params(cell) for cell in work.cells])},
            tune_config=tune.TuneConfig(
                max_concurrent_trials=resources.max_concurrent_trials,
                reuse_actors=_REUSES_WORKERS,
                trial_dirname_creator=lambda trial: trial.config["cell"]["name"],
            ),
            run_config=tune.RunConfig(
                storage_path=str(work.out / "ray"),
                verbose=0,
                callbacks=[callback],
                failure_config=tune.FailureConfig(max_failures=_MAX_PROCESS_DEATHS),
            ),
        )
        tuner.fit()


def _check_same_storage(folder: CellFolder, storage: Storage | None) -> None:
    if not folder.journal.epochs:
        return
    before, now = folder.description.storage, storage.uri if storage else None
    if before != now:
        raise UserError(
            f"--storage: {now or 'not given'}; {folder.path.name} began with "
            f"{before or 'none'}, where its checkpoints are: give the same, or remove {folder.path}"
        )


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
    say(console, f"{len(states)} {states[0].cell.plural}: {said}; {len(to_run)} to run")
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
