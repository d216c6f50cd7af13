"""Dry run: what a launch would do and cost, without starting anything."""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments.cells.cell import Cell
from experiments.cells.epoch_cost import EpochCost
from experiments.console import format_count, format_duration, say
from experiments.launching.cell_states import CellState, cell_states
from experiments.launching.grid_record import GridRecord
from experiments.launching.launch_lock import only_user_of
from experiments.places.place import Place
from experiments.specs.grid import Grid, Plan
from experiments.tracking.tracked_cells import read_tracked_cells
from nas.foundation.errors import SkippedImagesWarning


def print_dry_run(
    grid: Grid,
    out: Path,
    console: Console,
    *,
    claims: Mapping[str, Any] = {},
    retry_failed: bool,
    address: str | None = None,
    measure: bool = False,
    even_if_busy: bool = False,
) -> dict[str, Any]:
    """Prints the cells, the feasibility of each target (or the network), and warnings.

    Args:
        claims: what the grid is to test, JSON by name.
        address: of a Ray cluster; None for this machine.
        measure: whether to measure lookup tables that are missing, into the output folder, and to time a few
            steps, which gives the cost. Without, nothing is measured or written.
        even_if_busy: see `launch`.

    Returns:
        What a launch would register, see `GridRecord`.

    Raises:
        UserError: the file is wrong, or a target is out of reach.
    """
    report = partial(say, console)
    tracked = read_tracked_cells(grid.spec.experiment, out)
    with grid.place(address) as place, TemporaryDirectory() as scratch, locked(out if measure else None):
        if measure:
            plan = Plan.of(grid.cells(out, place, report, even_if_busy=even_if_busy))
        else:
            plan = grid.plan(out, Path(scratch), place, report, even_if_busy=even_if_busy)
        states = cell_states(plan.cells, tracked, out)
        to_run = [state for state in states if state.is_to_run(retry_failed)]
        cells = [state.cell for state in to_run]
        costs_s = None
        if measure:
            costs = time_all(cells, place, console)
            costs_s = _costs_s(to_run, costs, share_warmup=grid.spec.share_warmup)
        _print_cells(states, len(to_run), costs_s, grid.num_parallel(place, len(to_run)), console)
        print_images(plan.cells, console)
        if not measure:
            print_unmeasured(plan, cells, console)
        for line in _foreseen(cells, _count_all(cells, place)):
            say(console, f"warning: {line}")
        return GridRecord.of([state.cell for state in states], claims, grid.path.name).content


def locked(out: Path | None) -> AbstractContextManager[None]:
    """Keeps launches out of a folder into which tables are written; None if none are."""
    return nullcontext() if out is None else only_user_of(out)


def _print_cells(
    states: Sequence[CellState],
    num_to_run: int,
    costs_s: Mapping[str, float] | None,
    at_a_time: int,
    console: Console,
) -> None:
    """Prints all cells, with the cost of those to run, by their hashes, if it was measured."""
    cell = states[0].cell
    table = Table(cell.noun, "state", cell.subject_heading, "epochs", *([] if costs_s is None else ["cost"]))
    for state in states:
        row = [state.cell.name, state.state, state.cell.subject, _epochs(state)]
        if costs_s is not None:
            cost_s = costs_s.get(state.cell.hash, 0)
            row.append(format_duration(cost_s) if cost_s else "-")
        table.add_row(*row)
    console.print(table)
    line = f"{num_to_run} of {len(states)} {cell.plural} to run, {at_a_time} at a time"
    if costs_s is not None:
        total = format_duration(sum(costs_s.values()) / at_a_time)
        line += f": about {total}, estimated by timing a few steps of each kind"
    say(console, line)


def print_unmeasured(plan: Plan, to_run: Sequence[Cell], console: Console) -> None:
    """Prints what a dry run did not measure, and how to ask for it."""
    for describe in plan.tables:
        say(console, f"Not measured yet: {describe()}; a launch measures it first")
    if to_run:
        kinds = format_count(len({cell.cost_key for cell in to_run}), "kind")
        steps = f"a few steps of {kinds} of {to_run[0].plural}"
        first = "measures the lookup table first, and " if plan.tables else ""
        say(console, f"For the cost, add --measure: it {first}times {steps}")


def print_images(cells: Sequence[Cell], console: Console) -> None:
    """Prints a line for each set of images: their number, parts and classes."""
    for images in dict.fromkeys(cell.images for cell in cells):
        say(console, f"Images: {images}")


def time_all(cells: Sequence[Cell], place: Place, console: Console) -> Mapping[str, EpochCost]:
    """What an epoch costs, by `cost_key`, timed where trials run."""
    kinds = {cell.cost_key: cell for cell in cells}
    if kinds:
        say(console, f"Timing a few steps of {format_count(len(kinds), 'kind')} of {cells[0].plural} ...")
    with warnings.catch_warnings():
        # It would give the number among the few images that are timed.
        warnings.simplefilter("ignore", SkippedImagesWarning)
        return {
            key: place.run(cell.time_epochs, cell.config, cell.load_input(), cell.listing, alone=True)
            for key, cell in kinds.items()
        }


def _count_all(cells: Sequence[Cell], place: Place) -> Mapping[str, int]:
    """Number of weight steps of an epoch, by `cost_key`, counted where the images are."""
    kinds = {cell.cost_key: cell for cell in cells}
    return {key: place.run(cell.count_weight_steps, cell.config, cell.listing) for key, cell in kinds.items()}


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


def _foreseen(cells: Sequence[Cell], num_steps: Mapping[str, int]) -> list[str]:
    """What makes searches unhealthy and is known already, with the number of cells that it concerns.

    Args:
        num_steps: of `_count_all`.
    """
    checks = [check for cell in cells for check in cell.foresee(num_steps[cell.cost_key])]
    findings = Counter(check for check in checks if not check.is_healthy)
    return [f"{count} of {len(cells)} {cells[0].plural}: {check}" for check, count in findings.items()]


def _epochs(state: CellState) -> str:
    return f"{state.num_epochs}/{len(state.cell.phases)}"
