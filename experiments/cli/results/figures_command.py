"""`tfnas figures`: draw the figures of an experiment. Also options shared with other readers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from experiments.console import UserPath, echo

if TYPE_CHECKING:
    from analysis.reading.experiment import Experiment
    from analysis.reading.run_store import RunStore


from_option = click.option(
    "--from",
    "bundle",
    type=UserPath(),
    help="Read this bundle in place of MLflow; see `tfnas bundle`. EXPERIMENT is then left out.",
)


def experiment_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the argument EXPERIMENT, and the options that choose among its runs."""
    decorators = (
        click.argument("experiment", required=False),
        from_option,
        click.option(
            "--out",
            type=UserPath(file_okay=False),
            help="Folder of the launch, with its mlflow.db.  [default: results/EXPERIMENT]",
        ),
        click.option(
            "--table", help="Use only runs with this lookup table: first digits of its fingerprint."
        ),
        click.option(
            "--code-version", help="Use only runs of this version of the source: its first characters."
        ),
        click.option(
            "--all-runs",
            is_flag=True,
            help="Read every run of the experiment, not only those of the grid launched last.",
        ),
    )
    for decorate in reversed(decorators):
        command = decorate(command)
    return command


def open_experiment(
    name: str | None,
    out: Path | None,
    bundle: Path | None = None,
    *,
    table: str | None = None,
    code_version: str | None = None,
    all_runs: bool = False,
) -> tuple["Experiment", Path]:
    """Reads an experiment; returns it and its output folder.

    Args:
        bundle: what it is read from; None for MLflow.

    Raises:
        UserError: there is no store, no such experiment, or no finished run.
    """
    # Imported here: MLflow and pandas take seconds to import, and `--help` needs neither.
    from analysis.reading.experiment_reader import read_experiment

    store: RunStore
    if bundle is not None:
        from analysis.bundles.bundle_store import BundleStore

        store = BundleStore.open(bundle)
        name = name or store.experiment
    elif name is None:
        raise click.UsageError("Missing argument 'EXPERIMENT'")
    folder = out or Path("results") / name
    if bundle is None:
        from analysis.reading.store import MlflowStore, tracking_uri_of

        store = MlflowStore(tracking_uri_of(folder))
    experiment = read_experiment(name, store, table=table, code_version=code_version, all_runs=all_runs)
    return experiment, folder


@click.command()
@experiment_options
@click.option("--check", is_flag=True, help="Check that the figures still match the runs, without drawing.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def figures(
    experiment: str | None,
    bundle: Path | None,
    out: Path | None,
    table: str | None,
    code_version: str | None,
    all_runs: bool,
    check: bool,
    as_json: bool,
) -> int:
    """Draw the figures of EXPERIMENT from its runs in MLflow or in a bundle, into OUT/figures.

    The runs are those of the grid that was launched last; --all-runs reads every run.

    Each figure is written as PNG, PDF and SVG, with its caption as text and for LaTeX, its numbers as CSV,
    and a JSON file that names its runs. The exit code is 1 if the files of a run cannot be read, and with
    --check if a figure no longer matches the runs.

    Example: tfnas figures smoke --out results/smoke
    """
    from analysis.figures import make_drawings
    from analysis.figures.ink.figure_files import check_drawings, write_drawings

    runs, folder = open_experiment(
        experiment, out, bundle, table=table, code_version=code_version, all_runs=all_runs
    )
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
    return 1 if result.get("outdated") or not runs.is_read else 0


def _print(result: dict[str, list[str]], num_figures: int) -> None:
    for line in (*result["notices"], *result["undrawn"]):
        echo(line, err=True)
    for line in (*result.get("written", ()), *result.get("outdated", ())):
        echo(line)
    if "outdated" in result and not result["outdated"]:
        echo(f"{num_figures} figures match the runs")
