"""Whole launches: the real command, Ray, searches and MLflow."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Run

from experiments.cells.cell_folder import CellFolder, RunDescription
from experiments.cli import main as cli
from experiments.specs.grid_file import load_grid
from experiments.tracking.tracker import Tracker
from nas.config import SearchConfig
from nas.latency.table import LatencyTable
from nas.search.records import METRIC_NAMES, Trajectory
from nas.search.search import run_search
from nas.search.search_identity import RESULTS_VERSION
from nas.space.architecture import Architecture
from nas.space.macro_space import get_space
from tests.support.study_files import BASE
from tests.support.tiny import make_dense_table

DIVERGES, LEARNS = 1e30, 0.05


def tfnas(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    return subprocess.run(
        [sys.executable, "-c", "from experiments.cli.main import main; main()", *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        env=environment | {"OMP_NUM_THREADS": "1"},
    )


def write_spec(folder: Path, grid: dict[str, Any]) -> Path:
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump({"experiment": "tested", "base": BASE, "grid": grid}))
    return path


def runs_of(out: Path, kind: str) -> list[Run]:
    client = MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tested")
    return list(client.search_runs([experiment.experiment_id], f"tags.`tfnas.kind` = '{kind}'"))


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The output folder of a launch with one search that learns and one that diverges."""
    folder = tmp_path_factory.mktemp("launch")
    make_dense_table(get_space("micro")).save(folder / "table.json")
    spec = write_spec(folder, {"weight_lr": [DIVERGES, LEARNS]})
    return folder, tfnas("launch", str(spec), "--out", str(folder / "out"))


Launched = tuple[Path, subprocess.CompletedProcess[str]]


def test_a_search_that_diverges_fails_alone_and_is_listed(launched: Launched) -> None:
    folder, done = launched
    assert done.returncode == 1, done.stderr
    assert "1 of 2 searches are finished" in done.stdout
    assert f"weight_lr={DIVERGES}-s0: DivergedError: epoch 1: train_loss is" in done.stdout
    runs = {run.data.params["weight_lr"]: run for run in runs_of(folder / "out", "search")}
    assert {rate: run.info.status for rate, run in runs.items()} == {"1e+30": "FAILED", "0.05": "FINISHED"}
    assert "train_loss is" in runs["1e+30"].data.tags["tfnas.failure"]


def test_a_finished_run_has_all_epochs_params_tags_and_artifacts(launched: Launched) -> None:
    folder, _ = launched
    client = MlflowClient(f"sqlite:///{folder / 'out' / 'mlflow.db'}")
    (run,) = (run for run in runs_of(folder / "out", "search") if run.info.status == "FINISHED")
    (launch,) = runs_of(folder / "out", "launch")
    assert run.data.tags["mlflow.parentRunId"] == launch.info.run_id
    assert run.data.tags["factor.weight_lr"] == "0.05"
    assert run.data.params["num_epochs"] == str(BASE["num_epochs"])
    for name in METRIC_NAMES:
        steps = [entry.step for entry in client.get_metric_history(run.info.run_id, name)]
        assert steps == ([2] if name == "arch_loss" else [1, 2]), name
    artifacts = Path(client.download_artifacts(run.info.run_id, ""))
    assert Trajectory.load(artifacts / "trajectory.npz").epoch_E.tolist() == [1, 2]
    table = LatencyTable.load(artifacts / "latency_table.json")
    latency_ms = table.latency_ms(Architecture.load(artifacts / "architecture.json"))
    assert latency_ms == run.data.metrics["derived_latency_ms"]
    assert yaml.safe_load((artifacts / "config.yaml").read_text())["weight_lr"] == LEARNS


def test_launching_again_runs_only_what_is_missing_though_the_folders_are_gone(launched: Launched) -> None:
    folder, _ = launched
    out = folder / "out"
    before = {run.info.run_id: run.info.end_time for run in runs_of(out, "search")}
    shutil.rmtree(out / "ray")
    shutil.rmtree(out / "cells")
    spec = write_spec(folder, {"weight_lr": [DIVERGES, LEARNS, 0.1]})
    status = tfnas("launch", str(spec), "--out", str(out), "--status")
    assert status.returncode == 0, status.stderr
    assert [word in status.stdout for word in ("finished", "failed", "missing")] == [True] * 3
    assert not (out / "cells").exists()
    again = tfnas("launch", str(spec), "--out", str(out))
    assert again.returncode == 1, again.stderr
    assert "3 searches: 1 finished, 1 failed, 1 missing; 1 to run" in again.stdout
    runs = {run.info.run_id: run.info.end_time for run in runs_of(out, "search")}
    assert len(runs) == 3
    assert before.items() <= runs.items()
    assert sorted(run.info.status for run in runs_of(out, "search")) == ["FAILED", "FINISHED", "FINISHED"]


def tfnas_here(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The command in this process: quicker where no search is run."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(sys, "argv", ["tfnas", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


def test_a_second_launch_into_the_same_folder_is_refused_while_one_is_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_dense_table(get_space("micro")).save(tmp_path / "table.json")
    spec = write_spec(tmp_path, {"seed": [0]})
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".lock"):
        assert tfnas_here(monkeypatch, "launch", str(spec), "--out", str(tmp_path / "out")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "another launch is running" in line
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]


def test_a_search_that_a_launch_into_another_folder_is_running_is_not_run_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_dense_table(get_space("micro")).save(tmp_path / "table.json")
    spec = write_spec(tmp_path, {"seed": [0]})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'shared.db'}")
    grid = load_grid(spec)
    with grid.place(None) as place:
        (cell,) = grid.cells(tmp_path / "there", place, str)
    tracker = Tracker("tested", tmp_path / "there")
    folder = CellFolder.of(tmp_path / "there", cell)
    folder.describe(RunDescription.of(cell))
    folder.journal.start(tracker.start_launch("launch", spec))
    tracker.deliver(folder)
    monkeypatch.setattr(sys, "argv", ["tfnas", "launch", str(spec), "--out", str(tmp_path / "here")])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"a launch into {tmp_path / 'there'} is running {cell.name}" in line
    assert not (tmp_path / "here" / "cells").exists()


def test_runs_of_two_sources_are_all_finished_and_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_dense_table(get_space("micro")).save(tmp_path / "table.json")
    out = tmp_path / "out"
    for source, seeds in (("a", [0]), ("b", [0, 1])):
        monkeypatch.setattr("experiments.specs.preparation.code_version", lambda source=source: source)
        grid = load_grid(write_spec(tmp_path, {"seed": seeds}))
        with grid.place(None) as place:
            *_, cell = grid.cells(out, place, str)
        folder = CellFolder.of(out, cell)
        folder.describe(RunDescription.of(cell))
        folder.artifacts.mkdir()
        folder.journal.start(None)
        folder.journal.finish("FINISHED")
    assert tfnas_here(monkeypatch, "launch", str(tmp_path / "spec.yaml"), "--out", str(out)) == 0
    said = capsys.readouterr().out.splitlines()
    assert "2 searches: 2 finished; 0 to run" in said
    (note,) = [line for line in said if line.startswith("note: ")]
    assert f"2 versions of the source and 1 set of libraries; results version {RESULTS_VERSION}" in note


def test_a_dry_run_tells_cells_cost_and_reach_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_dense_table(get_space("micro")).save(tmp_path / "table.json")
    spec = write_spec(tmp_path, {"seed": [0, 1], "depth": ["sink", "skip"]})
    assert tfnas_here(monkeypatch, "launch", str(spec), "--out", str(tmp_path / "out"), "--dry-run") == 0
    said = capsys.readouterr().out
    assert "4 of 4 searches to run" in said
    assert said.count("50% of") == 4
    assert not (tmp_path / "out").exists()


def test_cells_share_a_warm_up_and_each_result_is_that_of_the_cell_alone(tmp_path: Path) -> None:
    make_dense_table(get_space("micro")).save(tmp_path / "table.json")
    out = tmp_path / "out"
    first = tfnas("launch", str(write_spec(tmp_path, {"sampling": ["single", "bi"]})), "--out", str(out))
    assert first.returncode == 0, first.stderr
    assert "Shared warm-ups: 1 epoch reused" in first.stdout
    for checkpoint in (out / "warmups").glob("*/checkpoint-*.pt"):
        checkpoint.write_bytes(b"damaged")
    spec = write_spec(tmp_path, {"sampling": ["single", "bi", "bi_max", "bi_min"]})
    second = tfnas("launch", str(spec), "--out", str(out))
    assert second.returncode == 0, second.stderr
    assert "2 finished, 2 missing; 2 to run" in second.stdout
    (warning,) = (line for line in second.stdout.splitlines() if "warning" in line)
    assert "bi_m" in warning
    assert "checkpoint-00001-" in warning
    assert "damaged" in warning
    client = MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    runs = runs_of(out, "search")
    assert len(runs) == 4
    for run in runs:
        steps = [entry.step for entry in client.get_metric_history(run.info.run_id, "val_accuracy")]
        assert steps == [1, 2]
        artifacts = Path(client.download_artifacts(run.info.run_id, ""))
        fields = yaml.safe_load((artifacts / "config.yaml").read_text())
        records = list(run_search(SearchConfig(**fields)))
        alone = Trajectory.of(fields["space"], fields["depth"], records)
        for name, array in vars(Trajectory.load(artifacts / "trajectory.npz")).items():
            assert np.array_equal(array, getattr(alone, name), equal_nan=name == "scaling_ms_EP"), name
        with (artifacts / "metrics.csv").open(newline="") as file:
            for row, record in zip(csv.DictReader(file), records, strict=True):
                for name, value in record.metrics.items():
                    assert name == "epoch_seconds" or float(row[name]) == value, name
