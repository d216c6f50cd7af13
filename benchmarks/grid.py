"""Measure how a grid's time grows with its trials, what a further trial costs, and what logging takes.

    python -m benchmarks.grid
    python -m benchmarks.grid --trial-seconds 1 --num-trials 2 --num-trials 4

The grids consist of short searches, two at a time. A further trial runs in a process that has already
run another. Its time counts from the end of the other trial to its own end, minus its epochs.
"""

import json
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
from ray import tune
from rich.console import Console

from benchmarks.machine import describe_machine, print_table
from benchmarks.searches import NUM_PARALLEL, Searches, seconds_of
from experiments.cells.cell import Input
from experiments.cells.cell_folder import CellFolder, find_cell_folders
from experiments.cells.trial import run_trial
from experiments.launching.grid_launch import launch
from experiments.specs.grid_file import load_grid
from experiments.tracking.tracker import Tracker

MAX_FURTHER_TRIAL_S = 1.0
MAX_LOGGING_PERCENT = 1.0
_TIMES = "times.json"


@dataclass(frozen=True)
class GridTimes:
    """The times of one launch.

    Attributes:
        total_s: from the call of `launch` to its return; imports happened before.
        trials_s: sum over trials of the time from start to end of the trial function.
        epochs_s: sum of `epoch_seconds`.
        reporting_s: time in `tune.report`, which waits until the driver has written its journal.
        delivery_s: time in the driver's thread that writes to MLflow.
        further_trials_s: for each trial that is not the first in its process, the time from the end of
            the trial before to its own end, minus its epochs.
    """

    total_s: float
    trials_s: float
    epochs_s: float
    reporting_s: float
    delivery_s: float
    further_trials_s: list[float]

    @property
    def logging_percent(self) -> float:
        """Share of the trials' time that logging takes."""
        return 100 * (self.reporting_s + self.delivery_s) / self.trials_s


def timed_trial(params: dict[str, Any], inputs: dict[str, Input]) -> None:
    """Runs a trial; writes into its folder when it ran and how long it reported."""
    reporting_s, report, start_s = 0.0, tune.report, time.time()

    def timed_report(metrics: dict[str, Any]) -> None:
        nonlocal reporting_s
        before_s = time.perf_counter()
        report(metrics)
        reporting_s += time.perf_counter() - before_s

    with patch.object(tune, "report", timed_report):
        run_trial(params, inputs)
    times = {"process": os.getpid(), "start_s": start_s, "end_s": time.time(), "reporting_s": reporting_s}
    folder = Path(params["cell"]["storage"]) / "cells" / params["cell"]["name"]
    (folder / _TIMES).write_text(json.dumps(times), encoding="utf-8")


def time_launch(spec: Path, out: Path) -> GridTimes:
    """Runs a grid in this process and reads its times from its folders."""
    delivery_s, deliver = 0.0, Tracker.deliver

    def timed_deliver(tracker: Tracker, folder: CellFolder) -> None:
        nonlocal delivery_s
        before_s = time.perf_counter()
        deliver(tracker, folder)
        delivery_s += time.perf_counter() - before_s

    with (
        patch("experiments.launching.grid_launch.run_trial", timed_trial),
        patch.object(Tracker, "deliver", timed_deliver),
    ):
        total_s = seconds_of(lambda: launch(load_grid(spec), out, Console(quiet=True)))
    trials = [_read_times(folder) for folder in find_cell_folders(out, print)]
    return GridTimes(
        total_s,
        trials_s=sum(times["end_s"] - times["start_s"] for times in trials),
        epochs_s=sum(times["epochs_s"] for times in trials),
        reporting_s=sum(times["reporting_s"] for times in trials),
        delivery_s=delivery_s,
        further_trials_s=list(_further_trials_s(trials)),
    )


def _read_times(folder: CellFolder) -> dict[str, float]:
    times: dict[str, float] = json.loads((folder.path / _TIMES).read_text(encoding="utf-8"))
    epochs_s = sum(event.metrics["epoch_seconds"] for event in folder.journal.epochs.values())
    return times | {"epochs_s": epochs_s}


def _further_trials_s(trials: list[dict[str, float]]) -> Iterator[float]:
    by_process = defaultdict(list)
    for times in sorted(trials, key=lambda times: times["start_s"]):
        by_process[times["process"]].append(times)
    for in_turn in by_process.values():
        for before, after in pairwise(in_turn):
            yield after["end_s"] - before["end_s"] - after["epochs_s"]


def report_growth(searches: Searches, nums_trials: tuple[int, ...]) -> None:
    """Prints how long grids take, and how much further trials and logging cost."""
    grids = {num: time_launch(searches.write_grid(num), searches.make_out()) for num in nums_trials}
    rows = []
    for num, times in grids.items():
        epochs_s = times.epochs_s / min(num, NUM_PARALLEL)
        further_s = times.further_trials_s
        rows.append(
            [
                num,
                f"{times.total_s:.1f}",
                f"{epochs_s:.1f}",
                f"{times.total_s - epochs_s:.1f}",
                f"{statistics.median(further_s):.2f} ({max(further_s):.2f})" if further_s else "",
                f"{times.logging_percent:.1f} %",
            ]
        )
    goals = ["goal", "", "", "", f"<= {MAX_FURTHER_TRIAL_S:.0f}", f"<= {MAX_LOGGING_PERCENT:.0f} %"]
    print_table(
        [
            f"trials of {searches.num_epochs} epochs",
            "launch, s",
            "their epochs, s",
            "beyond, s",
            "a further trial beyond its epochs, s: median (maximum)",
            "logging",
        ],
        [*rows, goals],
    )


@click.command(help=__doc__)
@click.option("--trial-seconds", default=5.0, show_default=True)
@click.option("--num-trials", "nums", type=int, multiple=True, default=(2, 4, 8, 16), show_default=True)
def main(trial_seconds: float, nums: tuple[int, ...]) -> None:
    """Prints a Markdown table."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    print(describe_machine())
    with tempfile.TemporaryDirectory() as folder:
        searches = Searches(Path(folder), "micro", max_train_images=500)
        searches.choose_num_epochs(trial_seconds)
        report_growth(searches, nums)


if __name__ == "__main__":
    main()
