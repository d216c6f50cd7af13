"""Measure what a launch does besides its searches: from the command to the first epoch, and after the last.

    python -m benchmarks.launch
    python -m benchmarks.launch --repeats 1

The lookup table is a file, and the output folder new. Each launch is a process of its own.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click

from benchmarks.machine import describe_machine, print_table
from benchmarks.searches import NUM_PARALLEL, Searches
from experiments.cells.cell_folder import find_cell_folders

MAX_FIRST_EPOCH_S = 12.0
PARTS = (
    "imports",
    "cells, and MLflow's tables",
    "start of Ray",
    "worker processes, until the first epoch begins",
)
_END = "after the last epoch"


def run_timed(times_path: str) -> None:
    """Runs the command line of this process, and writes when the parts of a launch end."""
    import experiments.launching.grid_launch as grid_launch
    from experiments.cli.main import main
    from experiments.places.place import ThisMachine

    times: dict[str, float] = {}

    def noting(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any, **options: Any) -> Any:
            times.setdefault(part, time.time())
            return function(*arguments, **options)

        return noted

    @contextmanager
    def noted_ray(place: ThisMachine) -> Iterator[None]:
        with start_ray(place):
            times[PARTS[2]] = time.time()
            yield

    start_ray = ThisMachine.ray

    with (
        # The first thing that a launch does once the file is read.
        patch.object(grid_launch, "read_tracked_cells", noting(PARTS[0], grid_launch.read_tracked_cells)),
        patch.object(grid_launch, "run_trials", noting(PARTS[1], grid_launch.run_trials)),
        patch.object(ThisMachine, "ray", noted_ray),
    ):
        try:
            main()
        except SystemExit as exit_:
            if exit_.code:
                raise
    Path(times_path).write_text(json.dumps(times), encoding="utf-8")


def time_launch(searches: Searches) -> dict[str, float]:
    """Seconds of each part of a launch."""
    spec, out = searches.write_grid(NUM_PARALLEL), searches.make_out()
    times_path = searches.folder / "times.json"
    script = f"from benchmarks.launch import run_timed; run_timed({str(times_path)!r})"
    command = [sys.executable, "-c", script, "launch", str(spec), "--out", str(out)]
    start_s = time.time()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    end_s = time.time()
    moments = [start_s, *(json.loads(times_path.read_text())[part] for part in PARTS[:-1])]
    epochs = [folder.journal.epochs for folder in find_cell_folders(out, print)]
    moments.append(min(each[1].time_ms / 1000 - each[1].metrics["epoch_seconds"] for each in epochs))
    seconds = {part: moments[index + 1] - moments[index] for index, part in enumerate(PARTS)}
    return seconds | {_END: end_s - max(each[max(each)].time_ms for each in epochs) / 1000}


@click.command(help=__doc__)
@click.option("--repeats", default=5, show_default=True)
def main(repeats: int) -> None:
    """Prints a Markdown table."""
    print(describe_machine())
    with tempfile.TemporaryDirectory() as folder:
        searches = Searches(Path(folder), "micro", max_train_images=1500)
        runs = [time_launch(searches) for _ in range(repeats)]
    firsts = [sum(run[part] for part in PARTS) for run in runs]
    rows = [[part, *_spread([run[part] for run in runs])] for part in (*PARTS, _END)]
    rows.insert(len(PARTS), ["from the command to the first epoch", *_spread(firsts)])
    print_table(["part", "median, s", "range, s"], rows)
    print(f"goal: {MAX_FIRST_EPOCH_S:.0f} s to the first epoch")


def _spread(seconds: list[float]) -> list[str]:
    return [f"{statistics.median(seconds):.1f}", f"{min(seconds):.1f} to {max(seconds):.1f}"]


if __name__ == "__main__":
    main()
