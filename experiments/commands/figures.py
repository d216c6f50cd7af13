"""`tfnas figures`: the figures of an experiment, from what is in MLflow alone."""

import json
from pathlib import Path

import click

from experiments.commands.options import experiment_options, open_experiment


@click.command()
@experiment_options
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def figures(
    experiment: str, out: Path | None, table: str | None, code_version: str | None, as_json: bool
) -> None:
    """Draws the figures of EXPERIMENT from its runs in MLflow, into OUT/figures.

    Each figure is written as PNG, PDF and SVG, with a JSON file that names its runs.

    Example: tfnas figures smoke --out results/smoke
    """
    from analysis.figures import make_drawings
    from analysis.provenance import write_drawing

    runs, folder = open_experiment(experiment, out, table, code_version)
    drawings, undrawn = make_drawings(runs)
    written = [str(path) for drawing in drawings for path in write_drawing(drawing, runs, folder / "figures")]
    if as_json:
        click.echo(
            json.dumps({"written": written, "undrawn": undrawn, "notices": list(runs.notices)}, indent=1)
        )
        return
    for line in (*runs.notices, *undrawn):
        click.echo(line, err=True)
    for path in written:
        click.echo(path)
