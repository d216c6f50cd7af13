"""`tfnas demo`: search, and draw the two figures."""

import time
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import click

from experiments.cli.launches.launch_command import claims_of, print_result
from experiments.console import UserPath, format_count, format_duration, make_console, say

if TYPE_CHECKING:
    from rich.console import Console

    from experiments.cells.cell import Cell
    from experiments.launching.grid_launch import LaunchResult
    from experiments.specs.grid import Grid
    from experiments.specs.search_grid import SearchGrid

_FIGURES = {
    "operator collapse": "which operator leads in each layer, epoch by epoch, single-path beside bi-sampling",
    "depth fluctuation": "the derived network's depth, epoch by epoch, skip against sink",
}

_FIGURES_S = 20.0
"""Time that is kept free for the figures."""

_START_S = 15.0
"""Time that a round takes beside its epochs: processes start and import torch."""


@click.command()
@click.option(
    "--out",
    type=UserPath(),
    default=Path("results/demo"),
    show_default=True,
    help="Output folder.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0),
    default=4.0,
    show_default=True,
    help="Time to use: a first round of searches always runs, further ones if they fit.",
)
def demo(out: Path, minutes: float) -> int:
    """Compare single-path with bi-sampling and skip with sink in the smallest space, and draw both figures.

    It takes a few minutes on two cores and downloads nothing. Each round runs the same four searches with
    another seed. Rerun it to resume after an interruption.

    Example: tfnas demo --out results/demo
    """
    # Imported here: Ray, MLflow and torch take seconds to import, and `--help` needs none of them.
    from analysis.figures import FIGURES
    from analysis.figures.ink.figure_files import write_drawing
    from analysis.reading.nothing_to_draw import NothingToDrawError
    from experiments.cli.results.figures_command import open_experiment
    from experiments.launching.status import next_steps
    from experiments.specs.grid_file import load_grid

    console = make_console()
    grid = load_grid(Path(str(files("tune_configs") / "quickstart.yaml")))
    result = _run_rounds(grid, out, console, 60 * minutes)
    exit_code = print_result(result, console)
    if exit_code == 130 or not result.finished:
        return exit_code
    runs, folder = open_experiment(grid.spec.experiment, out)
    say(console, "What to look at:")
    for title, meaning in _FIGURES.items():
        try:
            drawings = FIGURES[title](runs)
        except NothingToDrawError as missing:
            say(console, f"  {title}: not drawn: {missing}")
            continue
        for drawing in drawings:
            path, *_ = write_drawing(drawing, runs, folder / "figures")
            say(console, f"  {path}: {meaning}")
    for line in next_steps(runs.name, result.states, [str(grid.path)], out):
        say(console, line)
    return exit_code


def _run_rounds(grid: "Grid", out: Path, console: "Console", budget_s: float) -> "LaunchResult":
    """Runs the first round, and then at once those that fit into the rest of the time.

    A round is all searches of a seed. Its cost is taken from its epochs, so that a demo that is run again
    counts what it has spent before.
    """
    from experiments.launching.grid_launch import launch

    start_s = time.monotonic()
    first = first_rounds(grid, 1)
    # A demo runs wherever it is started, also beside other work; the launch says so.
    result = launch(first, out, console, claims=claims_of(first.spec, first.path), even_if_busy=True)
    if result.failed or result.interrupted:
        return result
    round_s = _searched_s(result.cells, first, out) + _START_S
    spent_s = max(time.monotonic() - start_s, round_s)
    num_rounds = count_rounds(budget_s - _FIGURES_S, spent_s, round_s, len(grid.spec.grid["seed"]))
    rounds = format_count(num_rounds, "round")
    say(console, f"A round takes {format_duration(round_s)}: {rounds} in {format_duration(budget_s)}")
    if num_rounds == 1:
        return result
    all_rounds = first_rounds(grid, num_rounds)
    return launch(
        all_rounds, out, console, claims=claims_of(all_rounds.spec, all_rounds.path), even_if_busy=True
    )


def count_rounds(budget_s: float, spent_s: float, round_s: float, most: int) -> int:
    """How many rounds fit into the time, the first included, which is done.

    Args:
        spent_s: until now.
        round_s: cost of a round.
        most: number of rounds that there are.
    """
    return min(1 + max(int((budget_s - spent_s) / round_s), 0), most)


def first_rounds(grid: "Grid", num_rounds: int) -> "SearchGrid":
    """The grid with its first seeds only."""
    from experiments.specs.search_grid import SearchGrid

    seeds = grid.spec.grid["seed"][:num_rounds]
    spec = grid.spec.model_copy(update={"grid": grid.spec.grid | {"seed": seeds}})
    return SearchGrid.of(spec, grid.path)


def _searched_s(cells: "list[Cell]", grid: "Grid", out: Path) -> float:
    """Seconds that the epochs of all cells took, by the number of cells that run at a time."""
    from experiments.cells.cell_folder import CellFolder

    epochs = [event for cell in cells for event in CellFolder.of(out, cell).journal.epochs.values()]
    with grid.place(None) as place:
        return sum(event.metrics["epoch_seconds"] for event in epochs) / grid.num_parallel(place, len(cells))
