"""Launch of a grid: cells that are not done run as Ray trials, and MLflow receives the results."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.cells.cell import Cell, first_of_each_warmup_first
from experiments.cells.cell_folder import CellFolder, RunDescription, find_cell_folders, folders_of_experiment
from experiments.cells.journal import Outcome
from experiments.cells.trial import run_trial
from experiments.console import format_count, format_duration, say
from experiments.launching.callback import LaunchCallback
from experiments.launching.cell_states import CellState, cell_states, note_on_sources
from experiments.launching.grid_record import GridRecord
from experiments.launching.launch_lock import only_user_of
from experiments.launching.progress import Progress
from experiments.launching.signals import check_ctrl_c, remembering_ctrl_c, stopping_cleanly
from experiments.launching.table_check import check_tables
from experiments.places.place import Place
from experiments.places.storage import Storage
from experiments.products.trained_latency import measure_trained
from experiments.specs.grid import Grid
from experiments.tracking.delivery import Delivery
from experiments.tracking.saved_views import LAUNCHES, SavedView, save_view
from experiments.tracking.seed_bands import deliver_bands, seed_bands
from experiments.tracking.store_access import require_server, tracking_uri
from experiments.tracking.tracked_cells import read_tracked_cells
from experiments.tracking.tracker import Tracker
from nas.foundation.errors import UserError

_MAX_PROCESS_DEATHS = 3
"""How often Ray restarts a trial whose process died (killed, out of memory)."""

_REUSES_WORKERS = True
"""Whether a process runs one trial after another: a fresh one takes seconds to import torch."""

PATIENCE_S = 60.0
"""How long a finished launch waits for an unreachable tracking server."""

HASTE_S = 2.0
"""How long a launch that is to stop immediately waits for it."""


@dataclass(frozen=True)
class LaunchResult:
    """The cells of a grid after a launch.

    Attributes:
        out: output folder on this machine.
        states: of all cells.
        num_undelivered: cells whose records MLflow lacks in part; the next launch delivers them.
        launch: the run in MLflow that registered the grid; None if it is unknown.
        num_bands: settings with a run for mean, low and high over their seeds.
    """

    experiment: str
    out: Path
    states: list[CellState]
    num_undelivered: int
    tracking_uri: str
    experiment_id: str
    launch: str | None = None
    num_bands: int = 0

    @property
    def cells(self) -> list[Cell]:
        """All cells of the grid but those whose run was deleted."""
        return [state.cell for state in self.states if state.state != "deleted"]

    @property
    def finished(self) -> list[Cell]:
        """The cells that are done."""
        return [state.cell for state in self.states if state.state == "finished"]

    @property
    def failed(self) -> list[tuple[Cell, str]]:
        """Cells and reasons."""
        return [(state.cell, state.reason) for state in self.states if state.state == "failed"]

    @property
    def interrupted(self) -> list[Cell]:
        """The cells that the next launch runs or resumes."""
        return [state.cell for state in self.states if state.state in ("interrupted", "missing")]

    @property
    def num_healthy(self) -> int:
        """Number of finished searches that passed all health checks."""
        return sum(state.is_healthy is True for state in self.states)

    @property
    def num_unhealthy(self) -> int:
        """Number of those that did not; older searches have no checks."""
        return sum(state.is_healthy is False for state in self.states)


def launch(
    grid: Grid,
    out: Path,
    console: Console,
    *,
    claims: Mapping[str, Any] = {},
    retry_failed: bool = False,
    address: str | None = None,
    storage: Storage | None = None,
    even_if_busy: bool = False,
) -> LaunchResult:
    """Registers a grid and its claims, then runs the cells that are not done.

    Args:
        out: output folder on this machine; created if it is missing.
        claims: what the grid is to test, JSON by name.
        retry_failed: whether to rerun cells that failed before.
        address: of a Ray cluster, `HOST:PORT` or `auto`; None for this machine.
        storage: where trials keep checkpoints and artifacts; None for the output folder.
        even_if_busy: whether to measure lookup tables though other processes use the machine, and to use
            tables that were measured so.

    Raises:
        UserError: something that the cells need is missing, another launch into the folder is running,
            or cluster, storage or tracking server cannot be used.
        KeyboardInterrupt: Ctrl-C was pressed twice.
    """
    out = out.resolve()
    if address:
        require_server(tracking_uri(out))
    if storage:
        storage.check_writable()
    # Before anything is measured: a store that cannot be used must not cost that time.
    read_tracked_cells(grid.spec.experiment, out)
    with remembering_ctrl_c(), only_user_of(out), grid.place(address) as place:
        # Looked at before a lookup table is measured, which takes minutes.
        read_tracked_cells(grid.spec.experiment, out)
        cells = grid.cells(out, place, partial(say, console), even_if_busy=even_if_busy)
        tracker = Tracker(grid.spec.experiment, out)
        for view in (SavedView.of_cells(cells[0].kind, list(cells[0].factors)), LAUNCHES):
            save_view(tracker.uri, tracker.experiment_id, view)
        folders = find_cell_folders(out, partial(say, console), storage)
        close_cut_off_attempts(folders)
        tracker.close_dead_launches()
        tracked = tracker.cells()
        states = cell_states(cells, tracked, out)
        cells = [state.cell for state in states]
        to_run = [state for state in states if state.is_to_run(retry_failed)]
        _print_plan(states, to_run, console)
        record = GridRecord.of(cells, claims, grid.path.name)
        delivery = Delivery(tracker, partial(say, console))
        hashes = {cell.hash for cell in cells}
        for folder in folders_of_experiment(folders, grid.spec.experiment, hashes):
            delivery.notify(folder)
        if to_run:
            check_tables([state.cell for state in to_run], place, partial(say, console))
            work = Work(grid, [state.cell for state in to_run], out, place, storage)
            undelivered = _run(work, len(states) - len(to_run), record, tracker, delivery, console)
        else:
            last = tracker.last_registration(record.kind)
            if last is None or last[1] != record.sha256:
                _register(record, grid, tracker)
                say(console, f"Registered this grid: figures and report compare these {cells[0].plural}")
            undelivered = delivery.close(PATIENCE_S)
        states = cell_states(cells, tracked, out)
        if note := note_on_sources(states):
            say(console, note)
        result = LaunchResult(
            grid.spec.experiment, out, states, len(undelivered), tracker.uri, tracker.experiment_id
        )
        if not result.interrupted and not undelivered:
            measure_trained(result.finished, out, place, tracker, partial(say, console))
        return result if undelivered else _with_bands(result, tracker, console)


def _with_bands(result: LaunchResult, tracker: Tracker, console: Console) -> LaunchResult:
    """Delivers mean, low and high over seeds of each setting; the cells themselves are delivered before."""
    folders = {cell.hash: CellFolder.of(result.out, cell) for cell in result.finished}
    bands = seed_bands(result.finished, folders)
    try:
        last = tracker.last_registration(result.cells[0].kind)
        launch = last[0] if last else None
        deliver_bands(tracker.uri, tracker.experiment_id, launch, bands)
    except UserError as error:
        say(console, f"{error}; the next launch adds the means over seeds")
        return result
    return replace(result, launch=launch, num_bands=len(bands))


@dataclass(frozen=True)
class Work:
    """The cells that a launch runs (of a study: those of `StudyGrid.check_reach`), and where.

    Attributes:
        out: output folder on this machine.
        storage: where trials keep their files; None for the output folder.
    """

    grid: Grid
    cells: Sequence[Cell]
    out: Path
    place: Place
    storage: Storage | None

    def prepare(self, cell: Cell) -> CellFolder:
        """Creates the folder of a cell, here and where its trials keep their files."""
        folder = CellFolder.of(self.out, cell, self.storage)
        _check_same_storage(folder, self.storage)
        folder.check_links()
        folder.describe(RunDescription.of(cell, self.grid.spec.experiment, self.storage))
        if self.storage:
            self.storage.cell(folder.path.name).make()
        return folder

    @property
    def has_common_warmups(self) -> bool:
        """Whether cells could share warm-ups, and may."""
        return self.grid.spec.share_warmup and len({cell.warmup for cell in self.cells}) < len(self.cells)

    def all_trial_params(self) -> list[dict[str, Any]]:
        """What each trial receives, in the order in which they start."""
        in_order = first_of_each_warmup_first(self.cells) if self.has_common_warmups else self.cells
        return [self.trial_params(cell) for cell in in_order]

    def trial_params(self, cell: Cell) -> dict[str, Any]:
        """What a trial receives; paths on this machine may not exist where it runs."""
        return {
            "hash": cell.hash,
            "kind": cell.kind,
            "results_version": cell.results_version,
            "input": cell.input_name,
            "listing": cell.listing_key,
            "storage": (self.storage or Storage(str(self.out))).uri,
            "name": CellFolder.of(self.out, cell).path.name,
            "share_warmup": self.grid.spec.share_warmup,
            "config": cell.config.model_dump(mode="json"),
        }


def _register(record: GridRecord, grid: Grid, tracker: Tracker) -> None:
    """Registers a grid of which nothing is to run, under a parent run without trials."""
    launch_id = _start_launch(grid, tracker)
    status = "KILLED"
    try:
        tracker.register(launch_id, record.text, record.tags)
        status = "FINISHED"
    finally:
        tracker.end_launch(launch_id, status)


def _start_launch(grid: Grid, tracker: Tracker) -> str:
    return tracker.start_launch(f"launch {datetime.now():%Y-%m-%d %H:%M:%S}", grid.path.name, grid.spec.text)


def _run(
    work: Work, num_done: int, record: GridRecord, tracker: Tracker, delivery: Delivery, console: Console
) -> list[str]:
    """Runs cells under a parent run, which ends as they do; returns the folders left to deliver."""
    shares_warmups = work.has_common_warmups and (work.storage is None or bool(work.storage.warmups_dir))
    if work.has_common_warmups and work.storage and not shares_warmups:
        say(console, f"Warm-ups are not shared: {work.storage.uri} is not a folder, so it has no locks")
    launch_id = _start_launch(work.grid, tracker)
    status, patience_s = "KILLED", HASTE_S
    try:
        tracker.register(launch_id, record.text, record.tags)
        tracker.check_unclaimed(record.kind, [cell.hash for cell in work.cells])
        folders = {cell.hash: work.prepare(cell) for cell in work.cells}
        num_parallel = work.grid.num_parallel(work.place, len(work.cells))
        with Progress(console, work.cells, num_done, num_parallel, shares_warmups=shares_warmups) as progress:
            callback = LaunchCallback(work.cells, folders, launch_id, progress, delivery)
            outcomes = _run_cells(work, callback)
        _print_saved(callback.shared_epochs_s, console)
        status = "KILLED" if "KILLED" in outcomes else "FAILED" if "FAILED" in outcomes else "FINISHED"
        patience_s = PATIENCE_S
    finally:
        undelivered = delivery.close(patience_s)
        tracker.end_launch(launch_id, status)
    return undelivered


def _run_cells(work: Work, callback: LaunchCallback) -> set[Outcome]:
    try:
        grid = {"grid_search": work.all_trial_params()}
        limit = work.grid.spec.resources.max_concurrent_trials
        run_trials(work, callback, param_space={"cell": grid}, max_concurrent_trials=limit)
    finally:
        outcomes = callback.close()
    return outcomes


def run_trials(
    work: Work, callback: LaunchCallback, *, param_space: dict[str, Any] | None = None, **choice: Any
) -> None:
    """Runs searches as Ray trials.

    Args:
        param_space: a grid; None if a searcher chooses.
        choice: more arguments of `tune.TuneConfig`: what runs when.
    """
    with work.place.ray():
        from ray import tune

        sources = {cell.input_name: cell for cell in work.cells}
        inputs = {name: cell.load_input() for name, cell in sources.items()}
        # Ray stores them once for all trials; to list the files again would take each trial seconds.
        listings = {cell.listing_key: cell.listing for cell in work.cells}
        trial = tune.with_parameters(run_trial, inputs=inputs, listings=listings)
        tuner = tune.Tuner(
            tune.with_resources(trial, tune.PlacementGroupFactory([work.place.bundle])),
            param_space=param_space,
            tune_config=tune.TuneConfig(
                reuse_actors=_REUSES_WORKERS,
                trial_dirname_creator=lambda trial: trial.config["cell"]["name"],
                **choice,
            ),
            run_config=tune.RunConfig(
                storage_path=str(work.out / "ray"),
                verbose=0,
                callbacks=[callback],
                failure_config=tune.FailureConfig(max_failures=_MAX_PROCESS_DEATHS),
            ),
        )
        check_ctrl_c()
        with stopping_cleanly():
            tuner.fit()


def _check_same_storage(folder: CellFolder, storage: Storage | None) -> None:
    if not folder.journal.epochs:
        return
    before, now = folder.description.storage, storage.uri if storage else None
    if before != now:
        raise UserError(
            f"--storage: {now or 'not given'}; {folder.path.name} began with "
            f"{before or 'none'}, which holds its checkpoints; give the same, or remove {folder.path}"
        )


def close_cut_off_attempts(folders: Sequence[CellFolder]) -> None:
    """Marks as interrupted what a killed launch could not end itself."""
    for folder in folders:
        if folder.journal.is_open:
            folder.journal.finish("KILLED")


def _print_plan(states: list[CellState], to_run: list[CellState], console: Console) -> None:
    counts = {
        name: sum(state.state == name for state in states)
        for name in ("finished", "failed", "interrupted", "missing", "deleted")
    }
    listed = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    cells = format_count(len(states), states[0].cell.noun, states[0].cell.plural)
    say(console, f"{cells}: {listed}; {len(to_run)} to run")
    for state in states:
        if state.state == "interrupted":
            say(console, f"{state.cell.name}: resumes after epoch {state.num_epochs}")
        elif state.state == "missing" and state.reason:
            say(console, f"{state.cell.name}: runs from scratch; {state.reason}")
        elif state.state == "deleted":
            say(console, f"{state.cell.name}: not run, since {state.reason}")


def _print_saved(shared_epochs_s: list[float], console: Console) -> None:
    num_epochs = len(shared_epochs_s)
    if num_epochs:
        saved = format_duration(sum(shared_epochs_s))
        say(
            console,
            f"Shared warm-ups: {format_count(num_epochs, 'epoch')} reused, which saved {saved} of computing",
        )
