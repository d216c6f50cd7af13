"""Delivery to a real MLflow store: each event arrives once, however often and in how many parts."""

import copy
import json
import math
import threading
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from experiments.cells.cell_folder import CellFolder, RunDescription
from experiments.tracking.delivery import Delivery
from experiments.tracking.tracker import Tracker, read_tracked_cells
from nas.foundation.errors import UserError
from nas.search.health import HealthCheck

NUM_EPOCHS = 5


@pytest.fixture(autouse=True)
def _default_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder with a store; making its tables takes seconds, so all tests share it."""
    return tmp_path_factory.mktemp("out")


def make_folder(out: Path, cell: str) -> CellFolder:
    folder = CellFolder(out / "cells" / cell)
    params = {"seed": "0", "target_latency_ms": "1.5"}
    tags = {"tfnas.cell": cell, "tfnas.kind": "search", "factor.seed": "0"}
    folder.describe(RunDescription(cell, f"bi-sink-{cell}", params, tags))
    folder.artifacts.mkdir()
    (folder.artifacts / "architecture.json").write_text("{}")
    return folder


def metrics_of(epoch: int) -> dict[str, float]:
    return {"train_loss": 1 / epoch, "val_accuracy": math.nan if epoch == 2 else 0.1 * epoch}


def run_all(folder: CellFolder, launch: str) -> None:
    folder.journal.start(launch)
    for epoch in range(1, NUM_EPOCHS + 1):
        folder.journal.add_epoch(epoch, metrics_of(epoch))
    folder.journal.finish("FINISHED")


def runs_of(tracker: Tracker, cell: str) -> list[Run]:
    client = MlflowClient(tracker.uri)
    return list(client.search_runs([tracker.experiment_id], f"tags.`tfnas.cell` = '{cell}'"))


def steps_of(tracker: Tracker, run: Run, metric: str) -> list[tuple[int, float]]:
    history = MlflowClient(tracker.uri).get_metric_history(run.info.run_id, metric)
    return [(entry.step, entry.value) for entry in history]


def assert_complete(tracker: Tracker, cell: str) -> Run:
    (run,) = runs_of(tracker, cell)
    assert run.info.status == "FINISHED"
    expected = [(epoch, 1 / epoch) for epoch in range(1, NUM_EPOCHS + 1)]
    assert sorted(steps_of(tracker, run, "train_loss")) == expected
    assert len(steps_of(tracker, run, "val_accuracy")) == NUM_EPOCHS
    assert run.data.params == {"seed": "0", "target_latency_ms": "1.5"}
    artifacts = MlflowClient(tracker.uri).list_artifacts(run.info.run_id)
    assert [file.path for file in artifacts] == ["architecture.json"]
    return run


def test_a_cell_becomes_one_complete_run_under_its_launch(store: Path) -> None:
    tracker = Tracker("once", store)
    launch = tracker.start_launch("launch", Path(__file__))
    folder = make_folder(store, "a1")
    run_all(folder, launch)
    tracker.deliver(folder)
    run = assert_complete(tracker, "a1")
    assert run.data.tags["mlflow.parentRunId"] == launch
    assert run.data.tags["mlflow.runName"] == "bi-sink-a1"
    assert tracker.cells()["a1"].status == "FINISHED"
    assert read_tracked_cells("once", store) == tracker.cells()


HEALTHY = HealthCheck("depth", True, "the derived network has 12 of 6 to 18 layers", "")
UNHEALTHY = [
    HealthCheck("latency", False, "the latency is 5 % too high", "raise latency_weight"),
    HealthCheck("widths", False, "every width is at its lower bound", "raise target_latency_ms"),
]


@pytest.mark.parametrize(
    ("cell", "checks", "expected"),
    [
        ("i1", [HEALTHY], {"tfnas.health": "healthy"}),
        (
            "i2",
            [UNHEALTHY[0], HEALTHY, UNHEALTHY[1]],
            {
                "tfnas.health": "unhealthy: latency, widths",
                "tfnas.health_findings": "The latency is 5 % too high; raise latency_weight. "
                "Every width is at its lower bound; raise target_latency_ms.",
            },
        ),
        ("i3", [], {}),
    ],
)
def test_tags_of_a_run_tell_its_health_before_it_is_finished(
    cell: str,
    checks: list[HealthCheck],
    expected: dict[str, str],
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tracker = Tracker("health", store)
    folder = make_folder(store, cell)
    if checks:
        folder.write_health(checks)
    run_all(folder, "launch")
    tags_at_the_end = []
    set_terminated = tracker._client.set_terminated

    def note_tags(run_id: str, *arguments: Any) -> None:
        tags_at_the_end.append(tracker._client.get_run(run_id).data.tags)
        set_terminated(run_id, *arguments)

    monkeypatch.setattr(tracker._client, "set_terminated", note_tags)
    tracker.deliver(folder)
    (run,) = runs_of(tracker, cell)
    for tags in (run.data.tags, *tags_at_the_end):
        assert {name: value for name, value in tags.items() if name.startswith("tfnas.health")} == expected
    assert len(tags_at_the_end) == 1
    assert run.info.status == "FINISHED"
    is_healthy = {"i1": True, "i2": False, "i3": None}[cell]
    assert tracker.cells()[cell].is_healthy is is_healthy


def test_telling_again_after_losing_every_receipt_doubles_nothing(store: Path) -> None:
    tracker = Tracker("again", store)
    folder = make_folder(store, "b1")
    run_all(folder, "launch")
    for _ in range(3):
        tracker.deliver(folder)
        (folder.path / "delivered.json").unlink(missing_ok=True)
    assert_complete(tracker, "b1")


def test_telling_in_pieces_of_any_size_is_telling_once(store: Path) -> None:
    tracker = Tracker("pieces", store)
    run_all(make_folder(store, "c1"), "launch")
    lines = (store / "cells" / "c1" / "journal.jsonl").read_bytes().splitlines(keepends=True)
    for num_lines in range(1, len(lines) + 1):
        (store / "cells" / "c1" / "journal.jsonl").write_bytes(b"".join(lines[:num_lines]))
        # A new folder object each time, as after a crash of the driver.
        tracker.deliver(CellFolder(store / "cells" / "c1"))
    assert_complete(tracker, "c1")


def test_a_run_that_failed_and_is_retried_ends_as_one_finished_run(store: Path) -> None:
    tracker = Tracker("retried", store)
    folder = make_folder(store, "d1")
    folder.journal.start("launch 1")
    folder.journal.add_epoch(1, metrics_of(1))
    folder.journal.finish("FAILED", "DivergedError: loss is nan")
    tracker.deliver(folder)
    assert tracker.cells()["d1"].status == "FAILED"
    assert tracker.cells()["d1"].failure == "DivergedError: loss is nan"
    run_all(folder, "launch 2")
    tracker.deliver(folder)
    run = assert_complete(tracker, "d1")
    assert "tfnas.failure" not in run.data.tags
    assert run.data.tags["mlflow.parentRunId"] == "launch 2"


def test_another_store_is_told_everything_from_the_start(store: Path, tmp_path: Path) -> None:
    folder = make_folder(store, "e1")
    run_all(folder, "launch")
    Tracker("moved", store).deliver(folder)
    other = Tracker("moved", tmp_path)
    other.deliver(folder)
    assert_complete(other, "e1")


def test_what_a_killed_launch_left_running_is_closed_by_the_next_one_only(
    store: Path, tmp_path: Path
) -> None:
    tracker = Tracker("killed", store)
    launch = tracker.start_launch("launch", Path(__file__))
    folder = make_folder(store, "f1")
    folder.journal.start(launch)
    tracker.deliver(folder)
    client = MlflowClient(tracker.uri)
    elsewhere = client.create_run(
        tracker.experiment_id, tags={"tfnas.kind": "launch", "tfnas.out": str(tmp_path)}
    )
    tracker.close_dead_launches()
    assert client.get_run(launch).info.status == "KILLED"
    assert tracker.cells()["f1"].status == "KILLED"
    assert client.get_run(elsewhere.info.run_id).info.status == "RUNNING"


def test_delivery_waits_for_a_store_that_is_away_and_loses_nothing(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("experiments.tracking.delivery._RETRY_S", 0.05)
    tracker = Tracker("away", store)
    folder = make_folder(store, "g1")
    said: list[str] = []
    has_tried = threading.Event()

    def note(message: str) -> None:
        said.append(message)
        has_tried.set()

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    away = copy.copy(tracker)
    away._client = MlflowClient("http://127.0.0.1:9")
    delivery = Delivery(away, note)
    run_all(folder, "launch")
    delivery.notify(folder)
    assert has_tried.wait(timeout=60)
    assert delivery.close(patience_s=0.1) == ["g1"]
    assert len(said) == 1
    assert "MLflow is unreachable" in said[0]
    delivery = Delivery(tracker, said.append)
    delivery.notify(CellFolder(folder.path))
    assert delivery.close(patience_s=60) == []
    assert_complete(tracker, "g1")


def test_an_error_of_our_own_in_the_thread_is_not_lost(store: Path) -> None:
    folder = make_folder(store, "h1")
    run_all(folder, "launch")
    (folder.path / "run.json").write_text(json.dumps({"name": "incomplete"}))
    delivery = Delivery(Tracker("ours", store), print)
    delivery.notify(folder)
    with pytest.raises(UserError, match="damaged"):
        delivery.close(patience_s=60)


def test_reading_what_is_tracked_makes_nothing(tmp_path: Path) -> None:
    assert read_tracked_cells("nothing", tmp_path) == {}
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_cannot_be_used_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI: cannot use") as caught:
        Tracker("unreachable", tmp_path)
    assert "\n" not in str(caught.value)


def test_an_experiment_deleted_in_the_store_is_refused(store: Path) -> None:
    tracker = Tracker("deleted", store)
    MlflowClient(tracker.uri).delete_experiment(tracker.experiment_id)
    with pytest.raises(UserError, match="'deleted' was deleted"):
        Tracker("deleted", store)
