"""`tfnas compare`: two trials side by side."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from experiments.cli.results.figures_command import from_option
from experiments.console import UserPath, make_console

if TYPE_CHECKING:
    from analysis.reading.run_store import RunStore


@click.command()
@click.argument("first", metavar="RUN")
@click.argument("second", metavar="RUN")
@click.option(
    "--out",
    type=UserPath(file_okay=False),
    help="Folder of the launch, with its mlflow.db.  [default: where the run is, or the current folder]",
)
@from_option
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON.")
def compare(first: str, second: str, out: Path | None, bundle: Path | None, as_json: bool) -> None:
    """Compare two trials: config, final numbers, and networks layer by layer.

    RUN is the name of a trial, or the first digits of its run id in MLflow, with `run:` before it or not.

    Example: tfnas compare single-s0-sink-T4 bi_random-s0-sink-T4 --out results/ablation_sampling
    """
    from analysis.report.run_comparison import compare_runs, find_run

    store: RunStore
    if bundle is not None:
        from analysis.bundles.bundle_store import BundleStore

        store = BundleStore.open(bundle)
    else:
        from analysis.reading.store import MlflowStore, tracking_uri_of

        store = MlflowStore(tracking_uri_of(out or _find_folder(first)))
    comparison = compare_runs(find_run(first, store), find_run(second, store))
    parts = {
        "provenance": comparison.provenance,
        "config fields that differ": comparison.config,
        "last value of each metric": comparison.numbers,
        "derived network: operator and mid channels": comparison.layers,
    }
    if as_json:
        content = vars(comparison) | {"runs": [run.run_id for run in comparison.runs]}
        click.echo(json.dumps(content, indent=1))
        return
    console = make_console()
    for title, rows in parts.items():
        table = Table(title=title, title_justify="left")
        for heading in ("", *(f"{run.name} ({run.short_id})" for run in comparison.runs)):
            table.add_column(heading)
        for label, (left, right) in rows.items():
            table.add_row(label, left, right, style="bold" if left != right else "dim")
        if rows:
            console.print(table)
        else:
            console.print(f"{title}: nothing")


def _find_folder(name: str) -> Path:
    """The current folder if it has a store; else the one in `results` that has the run."""
    from experiments.tracking.short_names import find_folder

    here = Path()
    if (here / "mlflow.db").is_file():
        return here
    found = find_folder([f"run:{name.removeprefix('run:')}"], Path("results/training"))
    return found if (found / "mlflow.db").is_file() else here
