"""Measure what Ray and MLflow cost: a grid against the bare loop.

    python -m benchmarks.overhead
    python -m benchmarks.overhead --trial-seconds 2 --num-trials 4 --repeats 1

The bare loop (`benchmarks.bare_loop`) runs the same searches with `run_search` in plain processes, as
many at a time. Both are commands. They run in turn and are timed from start to exit.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from benchmarks.machine import describe_machine, print_table
from benchmarks.searches import NUM_PARALLEL, Searches, seconds_of

MAX_OVERHEAD_PERCENT = 5.0
_TFNAS = "from experiments.cli.main import main; main()"


def report_overhead(searches: Searches, num_trials: int, num_repeats: int) -> None:
    """Prints how much longer a grid takes than the bare loop."""
    bare_s, grid_s = [], []
    for _ in range(num_repeats):
        bare_s.append(seconds_of(lambda: run_bare(searches, num_trials)))
        grid_s.append(seconds_of(lambda: run_command(searches, num_trials)))
    percents = [100 * (grid / bare - 1) for grid, bare in zip(grid_s, bare_s, strict=True)]
    print_table(
        [f"{num_trials} trials of {searches.num_epochs} epochs", "bare loop, s", "grid, s", "overhead"],
        [
            *(
                [f"repeat {repeat}", f"{bare:.1f}", f"{grid:.1f}", f"{percent:.1f} %"]
                for repeat, (bare, grid, percent) in enumerate(zip(bare_s, grid_s, percents, strict=True), 1)
            ),
            [
                "median",
                f"{statistics.median(bare_s):.1f}",
                f"{statistics.median(grid_s):.1f}",
                f"{statistics.median(percents):.1f} %",
            ],
            ["goal", "", "", f"<= {MAX_OVERHEAD_PERCENT:.0f} %"],
        ],
    )


def run_bare(searches: Searches, num_trials: int) -> None:
    """Runs the searches of a grid with `run_search` in plain processes, including checkpoints."""
    out, path = searches.make_out(), searches.folder / "searches.json"
    jobs = [(searches.fields(seed), str(out / str(seed))) for seed in range(num_trials)]
    path.write_text(json.dumps(jobs), encoding="utf-8")
    subprocess.run([sys.executable, "-m", "benchmarks.bare_loop", str(path), str(NUM_PARALLEL)], check=True)


def run_command(searches: Searches, num_trials: int) -> None:
    """Runs them as a grid with `tfnas launch`."""
    spec = searches.write_grid(num_trials)
    command = [sys.executable, "-c", _TFNAS, "launch", str(spec), "--out", str(searches.make_out())]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


@click.command(help=__doc__)
@click.option("--trial-seconds", default=30.0, show_default=True)
@click.option("--num-trials", default=8, show_default=True)
@click.option("--repeats", default=3, show_default=True)
def main(trial_seconds: float, num_trials: int, repeats: int) -> None:
    """Prints a Markdown table."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    print(describe_machine())
    with tempfile.TemporaryDirectory() as folder:
        searches = Searches(Path(folder), "micro", max_train_images=1500)
        searches.choose_num_epochs(trial_seconds)
        report_overhead(searches, num_trials, repeats)


if __name__ == "__main__":
    main()
