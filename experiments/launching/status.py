"""How the cells of a grid stand, and what to do next; nothing is started, measured or written."""

import math
import shlex
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from shlex import quote
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from experiments.cells.cell_folder import CellFolder
from experiments.console import format_count, format_duration, say
from experiments.launching.cell_states import CellState, cell_states, note_on_sources
from experiments.launching.cell_table import CellRow, explain_marks, make_table
from experiments.launching.launch_lock import is_launch_running
from experiments.launching.time_left import EpochTimes, wall_time_s
from experiments.specs.grid import Grid
from experiments.tracking.store_access import UnreachableStoreError
from experiments.tracking.tracked_cells import TrackedCell, peek_at_tracked_cells


def read_status(
    grid: Grid, out: Path, console: Console, *, address: str | None = None
) -> tuple[list[CellState], int]:
    """Looks up all cells whose lookup table is there.

    Returns:
        Their states, and the number of searches whose table is still to be measured.
    """
    with grid.place(address) as place, TemporaryDirectory() as scratch:
        # The state of what was run with a table does not depend on how that was measured.
        plan = grid.plan(out, Path(scratch), place, partial(say, console), even_if_busy=True)
        tracked = _read_tracked_cells(grid, out, console) if plan.measured else {}
        return cell_states(plan.measured, tracked, out), len(plan.cells) - len(plan.measured)


def print_status(
    grid: Grid,
    out: Path,
    console: Console,
    *,
    settings: Sequence[str] = (),
    address: str | None = None,
) -> None:
    """Prints the state of each cell, its accuracy, its result and the time left, and what to do next.

    Args:
        settings: of `--set`.
    """
    states, num_unmeasured = read_status(grid, out, console, address=address)
    is_running = is_launch_running(out)
    if states:
        rows = _rows(states, out, is_running=is_running)
        console.print(make_table(rows, console))
        for row in rows:
            if row.reason:
                say(console, f"{row.cell.name}: {row.reason}")
        for line in (explain_marks(rows, console), note_on_sources(states), _describe_time_left(rows)):
            if line:
                say(console, line)
    if num_unmeasured:
        searches = format_count(num_unmeasured, "search", "searches")
        say(console, f"{searches} without a lookup table; a launch measures it")
    config = [str(grid.path), *(part for text in settings for part in ("--set", text))]
    for line in next_steps(grid.spec.experiment, states, config, out, is_running=is_running):
        say(console, line)


def next_steps(
    experiment: str,
    states: Sequence[CellState],
    config: Sequence[str],
    out: Path,
    *,
    is_running: bool = False,
) -> list[str]:
    """What to do next: commands to paste, each with what it is for.

    Args:
        states: of the cells whose lookup table is there.
        config: the YAML file, and the settings that change it, as arguments of `tfnas launch`.
        is_running: whether a launch is running.
    """
    words = [state.state for state in states]
    names = f"{quote(experiment)} --out {quote(str(out))}"
    launch = f"tfnas launch {shlex.join(config)} --out {quote(str(out))}"
    steps = []
    if is_running:
        steps.append(f"a launch is running; to watch it in a browser: tfnas watch {names}")
    elif not states or {"missing", "interrupted"} & set(words):
        steps.append(f"to run or resume the rest: {launch}")
    if "failed" in words and not is_running:
        steps.append(f"to retry what failed: {launch} --retry-failed")
    if any(state.is_healthy is False for state in states):
        steps.append(f"to see what the searches lack: tfnas health {names}")
    finished = [state for state in states if state.state == "finished"]
    if any(state.cell.kind == "search" for state in finished):
        steps.append(f"to draw the figures: tfnas figures {names}")
        steps.append(f"to read the verdicts: tfnas report {names}")
    trained = [state for state in finished if state.cell.kind == "train"]
    if trained:
        best = max(trained, key=lambda state: state.metrics.get("test_accuracy", -math.inf))
        steps += how_to_use(best.cell.name, out)
    elif finished and (file := training_file(Path(config[0]))).is_file():
        steps.append(f"to train what they found: tfnas launch {quote(str(file))} --out {quote(str(out))}")
    return steps


def how_to_use(training: str, out: Path) -> list[str]:
    """What to do with the network of a finished training."""
    run = f"{quote(f'run:{training}')} --out {quote(str(out))}"
    return [
        f"to export the network of {training}: tfnas export {run}",
        f"to classify images with it: tfnas predict {run} IMAGE",
    ]


def training_file(searches: Path) -> Path:
    """The file of trainings that follows a file of searches, where `tfnas init` writes it."""
    return searches.with_name(f"{searches.stem}_train{searches.suffix}")


def describe_states(states: Sequence[CellState], out: Path) -> list[dict[str, Any]]:
    """The states of cells as JSON."""
    rows = _rows(states, out, is_running=is_launch_running(out))
    return [
        {
            "name": row.cell.name,
            "kind": row.cell.kind,
            "hash": row.cell.hash,
            "state": row.state,
            "num_epochs": len(row.cell.phases),
            "num_epochs_done": row.epoch,
            "metrics": {name: value for name, value in row.metrics.items() if math.isfinite(value)},
            "left_s": None if math.isnan(row.left_s) else round(row.left_s, 1),
            "is_healthy": row.is_healthy,
            "reason": row.reason,
        }
        for row in rows
    ]


def _rows(states: Sequence[CellState], out: Path, *, is_running: bool) -> list[CellRow]:
    times = EpochTimes()
    for state in states:
        epochs = CellFolder.of(out, state.cell).journal.epochs
        for number in sorted(epochs)[1:]:
            times.add(state.cell, number, epochs[number].metrics.get("epoch_seconds", math.nan))
    rows = []
    for state in states:
        cell = state.cell
        row = CellRow(
            cell, state.state, state.num_epochs, state.metrics, math.nan, state.is_healthy, state.reason
        )
        if is_running and (state.is_open or state.state in ("missing", "interrupted")):
            row.state = "running" if state.is_open else "waiting"
            row.left_s = times.epochs_s(cell, cell.phases[state.num_epochs :])
        rows.append(row)
    return rows


def _describe_time_left(rows: Sequence[CellRow]) -> str:
    """How long a running launch still takes; empty if none runs, or too little is known."""
    open_rows = [row for row in rows if row.state in ("running", "waiting")]
    num_running = sum(row.state == "running" for row in open_rows)
    left_s = wall_time_s([row.left_s for row in open_rows], num_running) if num_running else math.nan
    return "" if math.isnan(left_s) else f"about {format_duration(left_s)} left"


def _read_tracked_cells(grid: Grid, out: Path, console: Console) -> Mapping[str, TrackedCell]:
    try:
        return peek_at_tracked_cells(grid.spec.experiment, out)
    except UnreachableStoreError as error:
        say(console, f"warning: {error}; states below come from the output folder alone")
        return {}
