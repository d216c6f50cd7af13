"""`tfnas launch`: run what is missing of a YAML file's grid."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from experiments.console import make_console, say

if TYPE_CHECKING:
    from rich.console import Console

    from experiments.launch import LaunchResult


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Output folder.  [default: results/EXPERIMENT]")
@click.option("--dry-run", is_flag=True, help="Print cells, cost and feasibility; start nothing.")
@click.option("--status", is_flag=True, help="Print what became of each search so far; start nothing.")
@click.option("--retry-failed", is_flag=True, help="Try cells again that failed before.")
@click.option("--address", metavar="HOST:PORT|auto", help="Run the trials on this Ray cluster.")
@click.option(
    "--storage",
    metavar="PATH|URL",
    help="Where trials put checkpoints and artifacts: a folder that all nodes see, or s3://BUCKET/PREFIX.  "
    "[default: the output folder]",
)
def launch(
    config: Path,
    out: Path | None,
    dry_run: bool,
    status: bool,
    retry_failed: bool,
    address: str | None,
    storage: str | None,
) -> int:
    """Runs the searches of CONFIG, a YAML file, that are not done yet.

    Run it again to continue after whatever stopped it, or after adding values to the grid.
    Exit code 0: all done; 1: some searches failed; 2: the input is wrong; 130: interrupted.

    Example: tfnas launch tune_configs/smoke.yaml --out results/smoke
    """
    # Here, since Ray, MLflow and torch take seconds to import and `--help` needs none of them.
    from experiments.dry_run import print_dry_run, print_status
    from experiments.launch import launch as run_launch
    from experiments.spec import load_spec
    from experiments.storage import Storage

    console = make_console()
    out = out or Path("results") / load_spec(config).experiment
    if dry_run:
        print_dry_run(config, out, console, retry_failed=retry_failed, address=address)
        return 0
    if status:
        print_status(config, out, console, address=address)
        return 0
    result = run_launch(
        config,
        out,
        console,
        retry_failed=retry_failed,
        address=address,
        storage=Storage.parse(storage) if storage else None,
    )
    return print_result(result, console)


def print_result(result: "LaunchResult", console: "Console") -> int:
    """Says how a launch ended; returns the exit code."""
    for cell, reason in result.failed:
        say(console, f"failed: {cell.name}: {reason}")
    num_cells = len(result.finished) + len(result.failed) + len(result.interrupted)
    say(console, f"{len(result.finished)} of {num_cells} searches are finished; {_where_to_look(result)}")
    if result.interrupted:
        say(console, "interrupted; run the same command again to continue")
        return 130
    if result.failed:
        say(console, "run the same command with --retry-failed to try them again")
        return 1
    return 0


def _where_to_look(result: "LaunchResult") -> str:
    if result.tracking_uri.startswith("http"):
        return f"see them at {result.tracking_uri}"
    return f"see them with: mlflow ui --backend-store-uri {result.tracking_uri}"
