"""`tfnas launch`: run what is missing of a YAML file's grid, or of its study."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from experiments.console import make_console, say
from nas.foundation.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from experiments.cells.cell import Cell
    from experiments.launching.grid_launch import LaunchResult

_HOW_TO_CONTINUE = "interrupted; run the same command again to continue"


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Output folder.  [default: results/EXPERIMENT]")
@click.option("--dry-run", is_flag=True, help="Print cells, cost and feasibility; start nothing.")
@click.option("--status", is_flag=True, help="Print what became of each so far; start nothing.")
@click.option(
    "--then-train",
    "training",
    metavar="TRAIN",
    type=click.Path(path_type=Path),
    help="Then train what the searches found, and the other architectures of TRAIN, a YAML file.",
)
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
    training: Path | None,
    retry_failed: bool,
    address: str | None,
    storage: str | None,
) -> int:
    """Runs the searches, or the trainings, of CONFIG, a YAML file, that are not done yet.

    A file that lists `architectures` is of trainings, any other of searches: all those of a grid, or those
    that Optuna chooses for a `study`. Run it again to continue after whatever stopped it, or after adding
    values to the grid.
    Exit code 0: all done; 1: some failed, or MLflow could not be told; 2: the input is wrong;
    130: interrupted (Ctrl-C once: in order; twice: at once).

    Example: tfnas launch tune_configs/smoke.yaml --out results/smoke
    """
    # Here, since Ray, MLflow and torch take seconds to import and `--help` needs none of them.
    from experiments.cli.study_command import study
    from experiments.launching.dry_run import print_dry_run, print_status
    from experiments.launching.grid_launch import launch as run_launch
    from experiments.launching.grid_launch import load_grid, load_training_grid
    from experiments.places.storage import Storage
    from experiments.specs.study_grid import StudyPlan

    console = make_console()
    if training is not None and (dry_run or status):
        raise UserError("--then-train: not with --dry-run or --status; give these to each file by itself")
    grid = load_grid(config)
    out = out or Path("results") / grid.spec.experiment
    files = Storage.parse(storage) if storage else None
    if isinstance(grid, StudyPlan):
        if retry_failed:
            raise UserError(
                "--retry-failed: a study is done with points that failed; raise study.budget for further ones"
            )
        if training is not None:
            raise UserError("--then-train: not after a study; launch the best.yaml that it writes instead")
        return study(grid, out, console, dry_run=dry_run, status=status, address=address, storage=files)
    trainings = load_training_grid(training, grid.spec.experiment) if training is not None else None
    if dry_run:
        print_dry_run(config, out, console, retry_failed=retry_failed, address=address)
        return 0
    if status:
        print_status(config, out, console, address=address)
        return 0
    run_grid = partial(
        run_launch,
        out=out,
        console=console,
        retry_failed=retry_failed,
        address=address,
        storage=files,
    )
    try:
        result = run_grid(grid)
        exit_code = print_result(result, console)
        if trainings is not None and exit_code != 130 and result.finished:
            found = trainings.with_searches(_run_ids(result.finished, grid.spec.experiment, out))
            result = run_grid(found)
            exit_code = max(exit_code, print_result(result, console))
    except KeyboardInterrupt:
        say(console, _HOW_TO_CONTINUE)
        return 130
    _print_trained(result, grid.spec.experiment, out, console)
    return exit_code


def print_result(result: "LaunchResult", console: "Console") -> int:
    """Says how a launch ended; returns the exit code."""
    for cell, reason in result.failed:
        say(console, f"failed: {cell.name}: {reason}")
    num_done, plural = f"{len(result.finished)} of {len(result.cells)}", result.cells[0].plural
    say(console, f"{num_done} {plural} are finished; {_where_to_look(result)}")
    if result.num_undelivered:
        say(
            console,
            f"MLflow is still away: the records of {result.num_undelivered} {plural} wait on disk; "
            "run the same command again to deliver them",
        )
    if result.interrupted:
        say(console, _HOW_TO_CONTINUE)
        return 130
    if result.failed:
        say(console, "run the same command with --retry-failed to try them again")
    return 1 if result.failed or result.num_undelivered else 0


def _print_trained(result: "LaunchResult", experiment: str, out: Path, console: "Console") -> None:
    """Prints and writes the table of what was trained, if anything was."""
    from rich.table import Table

    from analysis.reading.experiment_reader import read_trainings
    from analysis.tables.table_files import cell_texts, write_table
    from analysis.tables.trained_table import trained_table

    trained = {cell.hash for cell in result.finished if cell.kind == "train"}
    if not trained or result.num_undelivered:
        return
    runs = read_trainings(experiment, result.tracking_uri, trained)
    table = trained_table(runs)
    shown = Table(*(column.heading for column in table.columns), title=table.title, title_justify="left")
    for row in cell_texts(table):
        shown.add_row(*row)
    console.print(shown)
    say(console, table.caption)
    path, *_ = write_table(table, runs, out / "tables")
    say(console, f"Written as {path}, and as .md and .csv")


def _run_ids(searches: "list[Cell]", experiment: str, out: Path) -> list[str]:
    from experiments.tracking.tracker import read_tracked_cells

    tracked = read_tracked_cells(experiment, out)
    if lacking := [cell.name for cell in searches if cell.hash not in tracked]:
        raise UserError(f"MLflow lacks the search {lacking[0]}; run the same command again when it is back")
    return [tracked[cell.hash].run_id for cell in searches]


def _where_to_look(result: "LaunchResult") -> str:
    if result.tracking_uri.startswith("http"):
        return f"see them at {result.tracking_uri}"
    return f"see them with: mlflow ui --backend-store-uri {result.tracking_uri}"
