"""Ray's worker processes run trial after trial, and nothing of one trial is left in the next."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console

from experiments.cells.cell_folder import find_cell_folders
from experiments.launching.callback import LaunchCallback
from experiments.launching.grid_launch import launch
from experiments.places.place import num_cores
from experiments.specs.grid_file import load_grid
from nas.foundation.checkpoint import find_checkpoints
from nas.search.records import Trajectory
from nas.space.macro_space import get_space
from tests.support.tiny import make_dense_table

BASE = {
    "max_train_images": 40,
    "batch_size": 8,
    "target_latency_ms": "50%",
    "num_epochs": 2,
    "num_warmup_epochs": 1,
}
FIELDS = ("space", "depth", "sampling", "augmentation", "num_threads", "weight_lr", "mixed_precision", "seed")
NUM_THREADS = min(num_cores(), 2)
CELLS = (
    ("micro", "sink", "bi", "paper", NUM_THREADS, 0.05, False, 0),
    # It diverges: the next one starts in a process where a search has failed.
    ("micro", "skip", "single", "none", 1, 1e30, True, 0),
    ("nano", "sink", "single", "none", 1, 0.05, False, 0),
    ("micro", "skip", "bi_gumbel", "crop_flip", 1, 0.05, False, 1),
    ("micro", "sink", "bi", "paper", 1, 0.05, False, 2),
)
"""Neighbours differ in all that a process could remember."""


@pytest.fixture(autouse=True)
def _default_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_results_are_the_same_to_the_last_bit_with_and_without_reuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = write_spec(tmp_path)
    pids: dict[str, set[int]] = {"reused": set(), "fresh": set()}
    for name, is_reused in (("reused", True), ("fresh", False)):
        with monkeypatch.context() as patch:
            patch.setattr("experiments.launching.grid_launch._REUSES_WORKERS", is_reused)
            note_processes(patch, pids[name])
            result = launch(load_grid(spec), tmp_path / name, Console(quiet=True))
        assert (len(result.finished), len(result.failed)) == (len(CELLS) - 1, 1), result
    assert (len(pids["reused"]), len(pids["fresh"])) == (1, len(CELLS))
    reused, fresh = read_results(tmp_path / "reused"), read_results(tmp_path / "fresh")
    assert reused.keys() == fresh.keys()
    for cell, expected in fresh.items():
        assert reused[cell].keys() == expected.keys(), cell
        for name, value in expected.items():
            np.testing.assert_array_equal(reused[cell][name], value, err_msg=f"{cell}: {name}", strict=True)


def write_spec(folder: Path) -> Path:
    cells = [dict(zip(FIELDS, values, strict=True)) for values in CELLS]
    for cell in cells:
        cell["latency_table"] = f"{cell['space']}.json"
        make_dense_table(get_space(str(cell["space"]))).save(folder / f"{cell['space']}.json")
    resources = {"cpus_per_trial": NUM_THREADS, "max_concurrent_trials": 1}
    content = {"experiment": "reuse", "base": BASE, "cells": cells, "resources": resources}
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def note_processes(monkeypatch: pytest.MonkeyPatch, pids: set[int]) -> None:
    """Collects the ids of the processes that trials report from."""
    on_trial_result = LaunchCallback.on_trial_result

    def note_and_pass_on(
        self: LaunchCallback,
        iteration: int,
        trials: list[Any],
        trial: Any,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        pids.add(result["pid"])
        on_trial_result(self, iteration, trials, trial, result, **info)

    monkeypatch.setattr(LaunchCallback, "on_trial_result", note_and_pass_on)


def read_results(out: Path) -> dict[str, dict[str, Any]]:
    """All that the searches of an output folder left, as arrays by name, but how long they took."""
    results = {}
    for folder in find_cell_folders(out, print):
        found: dict[str, Any] = {"journal": np.array([describe(event) for event in folder.journal.events])}
        if (folder.artifacts / "trajectory.npz").is_file():
            found |= vars(Trajectory.load(folder.artifacts / "trajectory.npz"))
            found["architecture"] = (folder.artifacts / "architecture.json").read_text()
            with (folder.artifacts / "metrics.csv").open(encoding="utf-8") as file:
                rows = [row for row in csv.DictReader(file) if row.pop("epoch_seconds")]
            found["metrics"] = json.dumps(rows)
        for path in find_checkpoints(folder.checkpoints):
            state = torch.load(path, weights_only=True)["state"]
            weights = {**state["supernet"], **state["generators"]}
            found |= {
                f"epoch {state['records'][-1]['epoch']}: {name}": t.numpy() for name, t in weights.items()
            }
        results[folder.path.name] = found
    return results


def describe(event: Any) -> str:
    metrics = {name: value.hex() for name, value in event.metrics.items() if name != "epoch_seconds"}
    return f"{event.kind} {event.epoch} {metrics} {event.outcome} {event.reason}"
