"""`tfnas figures`: draw the figures of an experiment from MLflow."""

import json
from pathlib import Path

import click

from experiments.cli.options import experiment_options, open_experiment


@click.command()
@experiment_options
@click.option("--check", is_flag=True, help="Check that the figures still match the runs, without drawing.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def figures(
    experiment: str, out: Path | None, table: str | None, code_version: str | None, check: bool, as_json: bool
) -> int:
    """Draw the figures of EXPERIMENT from its runs in MLflow, into OUT/figures.

    Each figure is written as PNG, PDF and SVG, with a JSON file that names its runs. With --check, the exit
    code is 1 if a figure no longer matches the runs.

    Example: tfnas figures smoke --out results/smoke
    """
    from analysis.figures import make_drawings
    from analysis.figures.ink.figure_files import check_drawings, write_drawings

    runs, folder = open_experiment(experiment, out, table, code_version)
    drawings, undrawn = make_drawings(runs)
    result: dict[str, list[str]] = {"notices": list(runs.notices), "undrawn": undrawn}
    if check:
        result["outdated"] = check_drawings(drawings, folder / "figures")
    else:
        result["written"] = list(map(str, write_drawings(drawings, runs, folder / "figures")))
    if as_json:
        click.echo(json.dumps(result, indent=1))
    else:
        _print(result, len(drawings))
    return 1 if result.get("outdated") else 0


def _print(result: dict[str, list[str]], num_figures: int) -> None:
    for line in (*result["notices"], *result["undrawn"]):
        click.echo(line, err=True)
    for line in (*result.get("written", ()), *result.get("outdated", ())):
        click.echo(line)
    if "outdated" in result and not result["outdated"]:
        click.echo(f"{num_figures} figures match the runs")
