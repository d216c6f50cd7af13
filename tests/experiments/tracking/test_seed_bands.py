"""Seed bands in a real MLflow store: one run per setting, whatever launches do and people delete."""

import math
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from experiments.cells.cell_folder import CellFolder, RunDescription
from experiments.cells.search_cell import SearchCell
from experiments.tracking.seed_bands import SeedBand, deliver_bands, seed_bands
from experiments.tracking.tracker import Tracker
from nas.config import SearchConfig

FIELDS = {"space": "paper", "target_latency_ms": 1.0, "latency_table": "table.json"}


@pytest.fixture(autouse=True)
def _default_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder with a store; making its tables takes seconds, so all tests share it."""
    return tmp_path_factory.mktemp("out")


def search(sampling: str, seed: int, **changes: Any) -> SearchCell:
    config = SearchConfig(**FIELDS | {"sampling": sampling, "seed": seed} | changes)
    return SearchCell(f"{sampling}-s{seed}-T1", {"sampling": sampling, "seed": seed}, config, "i", {}, "t")


def run_all(out: Path, cell: SearchCell, accuracies: list[float]) -> CellFolder:
    folder = CellFolder.of(out, cell)
    folder.describe(RunDescription.of(cell))
    if folder.journal.is_finished:
        return folder
    folder.artifacts.mkdir()
    folder.journal.start("launch")
    for epoch, accuracy in enumerate(accuracies, 1):
        folder.journal.add_epoch(epoch, {"val_accuracy": accuracy})
    folder.journal.finish("FINISHED")
    return folder


def bands_of(out: Path, *courses: tuple[SearchCell, list[float]]) -> list[SeedBand]:
    folders = {cell.hash: run_all(out, cell, course) for cell, course in courses}
    return seed_bands([cell for cell, _ in courses], folders)


COURSES = ((search("single", 0), [0.1]), (search("single", 1), [0.3]))
ANOTHER = (search("single", 2), [0.8])


def runs_of(tracker: Tracker) -> list[Run]:
    condition = "tags.`tfnas.kind` = 'aggregate'"
    return list(MlflowClient(tracker.uri).search_runs([tracker.experiment_id], condition))


def history(tracker: Tracker, run: Run, metric: str) -> list[tuple[int, float]]:
    entries = MlflowClient(tracker.uri).get_metric_history(run.info.run_id, metric)
    return sorted((entry.step, round(entry.value, 6)) for entry in entries)


def test_a_band_is_mean_low_and_high_of_the_epochs_that_all_seeds_have(tmp_path: Path) -> None:
    (band,) = bands_of(
        tmp_path,
        (search("single", 0), [0.1, 0.3, 0.9]),
        (search("single", 1), [0.3, math.nan]),
        (search("bi_random", 0), [0.5]),
    )
    found = {(metric.key, metric.step): metric.value for metric in band.metrics}
    assert found == {
        ("val_accuracy", 1): pytest.approx(0.2),
        ("val_accuracy_low", 1): 0.1,
        ("val_accuracy_high", 1): 0.3,
    }
    assert (band.name, band.seeds, band.factors) == ("single-T1 (2 seeds)", [0, 1], {"sampling": "single"})
    assert "seed" not in band.params


def test_cells_of_other_settings_are_not_mixed(tmp_path: Path) -> None:
    assert bands_of(tmp_path, COURSES[0], (search("single", 1, weight_lr=0.1), [0.3])) == []


def test_launching_again_doubles_nothing_and_another_seed_updates(store: Path, tmp_path: Path) -> None:
    tracker = Tracker("again", store)
    launch = tracker.start_launch("launch", "spec.yaml", "base: {}\n")
    for _ in range(3):
        deliver_bands(tracker.uri, tracker.experiment_id, launch, bands_of(tmp_path, *COURSES))
    (run,) = runs_of(tracker)
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.parentRunId"] == launch
    assert history(tracker, run, "val_accuracy") == [(1, 0.2)]
    bands = bands_of(tmp_path, *COURSES, ANOTHER)
    deliver_bands(tracker.uri, tracker.experiment_id, launch, bands)
    (updated,) = runs_of(tracker)
    assert updated.info.run_id != run.info.run_id
    assert history(tracker, updated, "val_accuracy") == [(1, 0.4)]
    assert history(tracker, updated, "val_accuracy_high") == [(1, 0.8)]


def test_a_band_cut_off_by_a_kill_is_replaced(store: Path, tmp_path: Path) -> None:
    tracker = Tracker("killed", store)
    (band,) = bands_of(tmp_path, *COURSES)
    client = MlflowClient(tracker.uri)
    for _ in range(2):
        client.create_run(tracker.experiment_id, tags=band.tags)
    deliver_bands(tracker.uri, tracker.experiment_id, None, [band])
    (run,) = runs_of(tracker)
    assert history(tracker, run, "val_accuracy") == [(1, 0.2)]


def test_a_band_that_somebody_deleted_does_not_come_back(store: Path, tmp_path: Path) -> None:
    tracker = Tracker("deleted", store)
    deliver_bands(tracker.uri, tracker.experiment_id, None, bands_of(tmp_path, *COURSES))
    (run,) = runs_of(tracker)
    MlflowClient(tracker.uri).delete_run(run.info.run_id)
    more = bands_of(tmp_path, *COURSES, ANOTHER)
    deliver_bands(tracker.uri, tracker.experiment_id, None, more)
    assert runs_of(tracker) == []


def test_bands_are_no_cells(store: Path, tmp_path: Path) -> None:
    tracker = Tracker("no cells", store)
    bands = bands_of(tmp_path, *COURSES)
    for cell, _ in COURSES:
        tracker.deliver(CellFolder.of(tmp_path, cell))
    deliver_bands(tracker.uri, tracker.experiment_id, None, bands)
    assert tracker.cells().keys() == {cell.hash for cell, _ in COURSES}
    tracker.close_dead_launches()
    assert len(runs_of(tracker)) == 1
