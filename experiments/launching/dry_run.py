"""Dry run and status: what a launch would do and cost, and how its cells stand; neither starts anything."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments.cells.cell import Cell
from experiments.cells.epoch_cost import EpochCost
from experiments.console import format_count, format_duration, say
from experiments.launching.cell_states import CellState, cell_states, note_on_sources
from experiments.launching.grid_record import GridRecord
from experiments.launching.launch_lock import is_launch_running
from experiments.places.place import Place
from experiments.specs.grid import Grid
from experiments.tracking.tracker import TrackedCell, UnreachableStoreError, read_tracked_cells


def print_dry_run(
    grid: Grid,
    out: Path,
    console: Console,
    *,
    claims: Mapping[str, Any] = {},
    retry_failed: bool,
    address: str | None = None,
) -> dict[str, Any]:
    """Prints the cells, the feasibility of each target (or the network), the estimated cost, and warnings.

    Args:
        claims: what the grid is to test, JSON by name.
        address: of a Ray cluster; None for this machine.

    Returns:
        What a launch would register, see `GridRecord`.

    Raises:
        UserError: the file is wrong, or a target is out of reach.
    """
    tracked = read_tracked_cells(grid.spec.experiment, out)
    with grid.place(address) as place:
        cells = grid.cells(out, place, partial(say, console))
        states = cell_states(cells, tracked, out)
        to_run = [state for state in states if state.is_to_run(retry_failed)]
        costs = time_all([state.cell for state in to_run], place, console)
        at_a_time = grid.num_parallel(place, len(to_run))
    costs_s = _costs_s(to_run, costs, share_warmup=grid.spec.share_warmup)
    table = Table(cells[0].noun, "state", cells[0].subject_heading, "epochs", "cost")
    for state in states:
        cost_s = costs_s.get(state.cell.hash, 0)
        cost = format_duration(cost_s) if cost_s else "-"
        table.add_row(state.cell.name, state.state, state.cell.subject, _epochs(state), cost)
    console.print(table)
    total_s = sum(costs_s.values())
    say(
        console,
        f"{len(to_run)} of {len(cells)} {cells[0].plural} to run, {at_a_time} at a time: about "
        f"{format_duration(total_s / at_a_time)}, estimated by timing a few steps of each kind",
    )
    for line in _foreseen([state.cell for state in to_run], costs):
        say(console, f"warning: {line}")
    return GridRecord.of(cells, claims, grid.path.name).content


def print_status(grid: Grid, out: Path, console: Console, *, address: str | None = None) -> None:
    """Prints the state of each cell; measures nothing and writes nothing."""
    with grid.place(address) as place:
        measured, num_unmeasured = grid.measured_part(out, place, partial(say, console))
        cells = measured.cells(out, place, partial(say, console)) if measured else []
    if cells:
        _print_states(cells, _read_tracked_cells(grid, out, console), out, console)
    if num_unmeasured:
        searches = format_count(num_unmeasured, "search", "searches")
        say(console, f"{searches} without a lookup table; a launch measures it")


def _print_states(
    cells: Sequence[Cell], tracked: Mapping[str, TrackedCell], out: Path, console: Console
) -> None:
    is_running = is_launch_running(out)
    states = cell_states(cells, tracked, out)
    table = Table(cells[0].noun, "state", "epochs", "reason")
    for state in states:
        word = "running" if is_running and state.is_open else state.state
        table.add_row(state.cell.name, word, _epochs(state), state.reason)
    console.print(table)
    if note := note_on_sources(states):
        say(console, note)


def _read_tracked_cells(grid: Grid, out: Path, console: Console) -> Mapping[str, TrackedCell]:
    try:
        return read_tracked_cells(grid.spec.experiment, out)
    except UnreachableStoreError as error:
        say(console, f"warning: {error}; states below come from the output folder alone")
        return {}


def time_all(cells: Sequence[Cell], place: Place, console: Console) -> Mapping[str, EpochCost]:
    """What an epoch costs, by `cost_key`, timed where trials run."""
    kinds = {cell.cost_key: cell for cell in cells}
    if kinds:
        say(console, f"Timing a few steps of {format_count(len(kinds), 'kind')} of {cells[0].plural} ...")
    return {
        key: place.run(cell.time_epochs, cell.config, cell.load_input(), cell.listing, alone=True)
        for key, cell in kinds.items()
    }


def _costs_s(
    states: list[CellState], costs: Mapping[str, EpochCost], *, share_warmup: bool
) -> dict[str, float]:
    """Seconds of each cell, by its hash; the first cell of each warm-up pays for it."""
    costs_s = {}
    warm: set[str] = set()
    for state in states:
        cell, cost = state.cell, costs[state.cell.cost_key]
        warms_up = not share_warmup or cell.warmup not in warm
        costs_s[cell.hash] = cost.left_s(cell.phases, state.num_epochs, warms_up=warms_up)
        warm.add(cell.warmup)
    return costs_s


def _foreseen(cells: Sequence[Cell], costs: Mapping[str, EpochCost]) -> list[str]:
    """What makes searches unhealthy and is known already, with the number of cells that it concerns."""
    checks = [check for cell in cells for check in cell.foresee(costs[cell.cost_key])]
    findings = Counter(check for check in checks if not check.is_healthy)
    return [f"{count} of {len(cells)} {cells[0].plural}: {check}" for check, count in findings.items()]


def _epochs(state: CellState) -> str:
    return f"{state.num_epochs}/{len(state.cell.phases)}"
