"""`tfnas demo`: search, and draw the two figures."""

from importlib.resources import files
from pathlib import Path

import click

from experiments.cli.launch_command import claims_of, print_result
from experiments.console import make_console, say

_FIGURES = {
    "operator collapse": "which operator leads in each layer, epoch by epoch, single-path beside bi-sampling",
    "depth fluctuation": "the derived network's depth, epoch by epoch, skip against sink",
}


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("results/demo"),
    show_default=True,
    help="Output folder.",
)
def demo(out: Path) -> int:
    """Compare single-path with bi-sampling and skip with sink in the smallest space, and draw both figures.

    It takes a few minutes on two cores and downloads nothing. Rerun it to resume after an interruption.

    Example: tfnas demo --out results/demo
    """
    # Imported here: Ray, MLflow and torch take seconds to import, and `--help` needs none of them.
    from analysis.figures import FIGURES
    from analysis.figures.ink.figure_files import write_drawing
    from analysis.reading.nothing_to_draw import NothingToDrawError
    from experiments.cli.figures_command import open_experiment
    from experiments.launching.grid_launch import launch
    from experiments.specs.grid_file import load_grid

    console = make_console()
    grid = load_grid(Path(str(files("tune_configs") / "quickstart.yaml")))
    result = launch(grid, out, console, claims=claims_of(grid))
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
    say(console, f"All figures of this experiment: tfnas figures {runs.name} --out {out}")
    return exit_code
