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
from experiments.ray_session import Place, open_place
from experiments.spec import ExperimentSpec, load_spec
from experiments.storage import Storage
from experiments.tracking import Tracker, require_server, tracking_uri
from experiments.trial import run_trial
from nas.errors import UserError
from nas.latency import LatencyTable

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
        return cls(path, spec, draft_cells(spec, path))

    @contextmanager
    def place(self, address: str | None) -> Iterator[Place]:
        """Where its trials run: on the cluster of an address, or on this machine.

        Raises:
            UserError: the machine is too small, or the cluster cannot be used.
        """
        with open_place(address, self.spec.resources, str(self.path)) as place:
            yield place

    def num_parallel(self, place: Place, num_cells: int) -> int:
        """How many trials run at a time."""
        limit = self.spec.resources.max_concurrent_trials or num_cells
        return max(min(place.num_slots(), limit, num_cells), 1)

    def cells(self, out: Path, place: Place, console: Console) -> list[Cell]:
        """The cells; measures a lookup table into the output folder if need be.

        Raises:
            UserError: a table or images are missing, or a target is out of reach.
        """
        for field in _fields_without_effect(self.drafts):
            say(console, f"{self.path}: warning: {field} has no effect in any of these searches")
        preparation = Preparation(out, place, str(self.path), partial(say, console))
        return make_cells(self.drafts, preparation, str(self.path))


def launch(
    path: Path,
    out: Path,
    console: Console,
    *,
    retry_failed: bool = False,
    address: str | None = None,
    storage: Storage | None = None,
) -> LaunchResult:
    """Runs the cells of a YAML file that are not done yet.

    Args:
        out: output folder of this machine; made if it is missing.
        retry_failed: whether cells that failed before are tried again.
        address: of a Ray cluster, `HOST:PORT` or `auto`; None for this machine.
        storage: where trials put checkpoints and artifacts; None for the output folder.

    Raises:
        UserError: the file is wrong, another launch into the folder is running, or cluster, storage
            or tracking cannot be used.
    """
    out = out.resolve()
    grid = Grid.load(path)
    if address:
        require_server(tracking_uri(out))
    if storage:
        storage.check_writable()
    with _only_launch_into(out), grid.place(address) as place:
        cells = grid.cells(out, place, console)
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
            _run(to_do, tracker, delivery, console)
        undelivered = delivery.close(_PATIENCE_S)
        if undelivered:
            say(
                console,
                f"MLflow is still away: the records of {len(undelivered)} searches wait in {out / 'cells'}; "
                "the next launch delivers them",
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
            "cell": cell.hash,
            "code": cell.code_version,
            "table": cell.table_fingerprint,
            "storage": (self.storage or Storage(str(self.out))).uri,
            "name": cell.folder_name,
            "config": cell.config.model_dump(mode="json"),
        }


def _run(work: _Work, tracker: Tracker, delivery: Delivery, console: Console) -> None:
    folders = work.prepare_folders()
    launch_id = tracker.start_launch(f"launch {datetime.now():%Y-%m-%d %H:%M:%S}", work.grid.path)
    num_done = len(work.grid.drafts) - len(work.cells)
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

        tables = {cell.table_fingerprint: LatencyTable.load(cell.config.latency_table) for cell in work.cells}
        trial = tune.with_parameters(run_trial, tables=tables)
        tuner = tune.Tuner(
            tune.with_resources(trial, tune.PlacementGroupFactory([work.place.bundle])),
            param_space={"search": tune.grid_search([work.trial_params(cell) for cell in work.cells])},
            tune_config=tune.TuneConfig(
                max_concurrent_trials=resources.max_concurrent_trials,
                # A fresh process costs seconds, for importing torch.
                reuse_actors=True,
                trial_dirname_creator=lambda trial: trial.config["search"]["name"],
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
