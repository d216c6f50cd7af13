"""`tfnas watch`: a page that follows a running launch."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from experiments.console import UserPath, echo

if TYPE_CHECKING:
    from analysis.reading.run import Run
    from experiments.cells.cell_folder import CellFolder

_PAGE = "watch.html"


@click.command()
@click.argument("experiment")
@click.option(
    "--out",
    type=UserPath(file_okay=False),
    help="Folder of the launch.  [default: results/EXPERIMENT]",
)
@click.option(
    "--every",
    "interval_s",
    type=click.FloatRange(min=1),
    default=5.0,
    show_default=True,
    help="Seconds from one version of the page to the next.",
)
def watch(experiment: str, out: Path | None, interval_s: float) -> None:
    """Follow a running launch: write OUT/watch.html, which reloads itself, until the launch ends.

    The page has the state of each search, and the depth and collapse figures as far as they have grown. It
    reads the output folder alone, so searches whose files are in an object store have no figures before
    their end. Ctrl-C ends the page, not the launch.

    Example: tfnas watch smoke --out results/smoke
    """
    # Imported here: matplotlib and pandas take seconds to import, and `--help` needs neither.
    from analysis.report.watch_page import write_watch_page
    from experiments.launching.launch_lock import is_launch_running
    from nas.foundation.errors import UserError

    folder = (out or Path("results") / experiment).resolve()
    if not (folder / "cells").is_dir():
        raise UserError(f"--out: {folder}: no launch has begun there; give the folder of the launch")
    path = folder / _PAGE
    echo(f"open {path.as_uri()}")
    while True:
        is_running = is_launch_running(folder)
        runs = [_read(cell, is_running=is_running) for cell in _cell_folders(folder)]
        write_watch_page(experiment, runs, path, interval_s if is_running else None)
        if not is_running:
            echo("the launch has ended")
            return
        time.sleep(interval_s)


def _cell_folders(out: Path) -> "list[CellFolder]":
    from experiments.cells.cell_folder import find_cell_folders

    return find_cell_folders(out, lambda line: echo(line, err=True))


def _read(folder: "CellFolder", *, is_running: bool) -> "Run":
    """What a cell's folder holds so far, as a run."""
    from analysis.reading.run_reader import make_run
    from nas.foundation.errors import UserError
    from nas.search.records import Trajectory

    description, journal = folder.description, folder.journal
    epochs = journal.epochs
    metrics = epochs[max(epochs)].metrics | {"epoch": max(epochs)} if epochs else {}
    end = journal.end
    if end is not None and end.outcome is not None:
        status: str = end.outcome
    else:
        status = "KILLED" if not is_running else "RUNNING" if journal.is_open else "WAITING"
    path = folder.artifacts / "trajectory.npz"
    try:
        trajectory = Trajectory.load(path) if path.is_file() and epochs else None
    except UserError as error:
        echo(f"{error}", err=True)
        trajectory = None
    return make_run(
        description.cell,
        description.name,
        status,
        description.params,
        metrics,
        description.tags,
        trajectory=trajectory,
    )
