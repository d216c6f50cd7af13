"""Delivery to a real MLflow store: each event arrives once, however often and in how many parts."""

import copy
import json
import math
import shutil
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from analysis.reading.store import fetch_artifact
from experiments.cells.cell_folder import CellFolder, RunDescription, find_cell_folders, folders_of_experiment
from experiments.places.storage import Storage
from experiments.tracking.delivery import Delivery
from experiments.tracking.named_run import find_run
from experiments.tracking.tracked_cells import read_tracked_cells
from experiments.tracking.tracker import Tracker
from nas.foundation.errors import UserError
from nas.search.health import HealthCheck
from tests.support.limits import PATIENCE_S

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
    launch = tracker.start_launch("launch", "spec.yaml", "base: {}\n")
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


def test_a_search_that_never_began_becomes_a_failed_run_and_can_begin_later(store: Path) -> None:
    tracker = Tracker("never", store)
    folder = make_folder(store, "n1")
    folder.journal.finish("FAILED", "out of memory")
    tracker.deliver(folder)
    (run,) = runs_of(tracker, "n1")
    assert (run.info.status, run.data.tags["tfnas.failure"]) == ("FAILED", "out of memory")
    run_all(folder, "launch")
    tracker.deliver(folder)
    assert_complete(tracker, "n1")


def test_results_are_only_read_from_the_storage_of_the_launch(store: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "private"
    (foreign / "cells" / "o1" / "artifacts").mkdir(parents=True)
    (foreign / "cells" / "o1" / "artifacts" / "secret.txt").write_text("a private key")
    folder = make_folder(store, "o1")
    folder.describe(replace(folder.description, storage=str(foreign)))
    run_all(folder, "launch")
    tracker = Tracker("storage", store)
    given = [CellFolder(folder.path, storage) for storage in (None, Storage(str(tmp_path / "other")))]
    for one in given:
        with pytest.raises(UserError, match=f"--storage: {foreign} holds the results of o1; give it again"):
            tracker.deliver(one)
    assert not (folder.artifacts / "secret.txt").exists()
    tracker.deliver(CellFolder(folder.path, Storage(str(foreign))))
    (run,) = runs_of(tracker, "o1")
    files = MlflowClient(tracker.uri).list_artifacts(run.info.run_id)
    assert [file.path for file in files] == ["architecture.json", "secret.txt"]


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


@pytest.fixture
def server(store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another folder, whose launches and those of `store` go into one store."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store / 'mlflow.db'}?timeout=30")
    return store


def test_what_a_killed_launch_left_running_is_closed_by_the_next_one_into_its_folder_only(
    server: Path, tmp_path: Path
) -> None:
    tracker, elsewhere = Tracker("killed", server), Tracker("killed", tmp_path)
    launch, other = (each.start_launch("launch", "spec.yaml", "base: {}\n") for each in (tracker, elsewhere))
    folder = make_folder(server, "f1")
    folder.journal.start(launch)
    tracker.deliver(folder)
    Tracker("killed", server).close_dead_launches()
    client = MlflowClient(tracker.uri)
    assert client.get_run(launch).info.status == "KILLED"
    assert tracker.cells()["f1"].status == "KILLED"
    assert client.get_run(other).info.status == "RUNNING"


@pytest.mark.parametrize("is_server", [False, True])
def test_launches_of_one_path_on_two_machines_are_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_server: bool
) -> None:
    """As in containers: the same path, another disk."""
    out, away = tmp_path / "out", tmp_path / "away"
    if is_server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'shared.db'}")
    out.mkdir()
    launch = Tracker("machines", out).start_launch("launch", "spec.yaml", "base: {}\n")
    if is_server:
        out.rename(away)
        out.mkdir()
        next_one = Tracker("machines", out)
        next_one.close_dead_launches()
        assert MlflowClient(next_one.uri).get_run(launch).info.status == "RUNNING"
        shutil.rmtree(out)
        away.rename(out)
        # A copy of the folder on another machine, while the original is running.
        with monkeypatch.context() as patch:
            patch.setattr("socket.gethostname", lambda: "another")
            next_one.close_dead_launches()
        assert MlflowClient(next_one.uri).get_run(launch).info.status == "RUNNING"
    else:
        # With its own store, a folder that comes to another machine brings its launches along.
        monkeypatch.setattr("socket.gethostname", lambda: "another")
    Tracker("machines", out).close_dead_launches()
    assert MlflowClient(Tracker("machines", out).uri).get_run(launch).info.status == "KILLED"


def test_an_end_that_mlflow_did_not_hear_of_is_delivered_by_the_next_launch(store: Path) -> None:
    tracker = Tracker("unheard", store)
    launch = tracker.start_launch("launch", "spec.yaml", "base: {}\n")
    tracker._client = MlflowClient("http://127.0.0.1:9")
    tracker.end_launch(launch, "FINISHED")
    following = Tracker("unheard", store)
    assert MlflowClient(following.uri).get_run(launch).info.status == "RUNNING"
    following.close_dead_launches()
    assert MlflowClient(following.uri).get_run(launch).info.status == "FINISHED"


def interrupted(out: Path, cell: str, num_epochs: int) -> CellFolder:
    folder = make_folder(out, cell)
    folder.journal.start("launch 1")
    for epoch in range(1, num_epochs + 1):
        folder.journal.add_epoch(epoch, metrics_of(epoch))
    folder.journal.finish("KILLED")
    return folder


@pytest.mark.parametrize("is_elsewhere", [False, True])
def test_a_cell_that_is_run_anew_after_it_was_interrupted_has_each_epoch_once(
    server: Path, tmp_path: Path, is_elsewhere: bool
) -> None:
    tracker = Tracker("anew", server)
    cell = f"j{is_elsewhere}"
    before = interrupted(server, cell, 3)
    tracker.deliver(before)
    time.sleep(0.002)
    if not is_elsewhere:
        shutil.rmtree(before.path)
    anew = make_folder(tmp_path if is_elsewhere else server, cell)
    run_all(anew, "launch 2")
    following = Tracker("anew", tmp_path if is_elsewhere else server)
    following.deliver(anew)
    finished = assert_complete(following, cell)
    # A launch into the old folder delivers what it still has.
    if is_elsewhere:
        Tracker("anew", server).deliver(before)
        assert assert_complete(following, cell).info.run_id == finished.info.run_id


def test_an_old_folder_that_goes_on_takes_over_again(server: Path, tmp_path: Path) -> None:
    before = interrupted(server, "k1", 3)
    Tracker("over", server).deliver(before)
    time.sleep(0.002)
    Tracker("over", tmp_path).deliver(interrupted(tmp_path, "k1", 2))
    time.sleep(0.002)
    before.journal.start("launch 3")
    for epoch in range(4, NUM_EPOCHS + 1):
        before.journal.add_epoch(epoch, metrics_of(epoch))
    before.journal.finish("FINISHED")
    tracker = Tracker("over", server)
    tracker.deliver(before)
    assert_complete(tracker, "k1")


@pytest.mark.parametrize("has_new_tracker", [False, True])
def test_a_run_that_is_deleted_in_mlflow_stays_deleted_until_it_is_restored(
    store: Path, has_new_tracker: bool
) -> None:
    tracker = Tracker("deleted", store)
    folder = make_folder(store, f"l{has_new_tracker}")
    cell = folder.description.cell
    run_all(folder, "launch")
    tracker.deliver(folder)
    run = assert_complete(tracker, cell)
    client = MlflowClient(tracker.uri)
    client.delete_run(run.info.run_id)
    folder.journal.start("launch 2")
    folder.journal.finish("FINISHED")
    if has_new_tracker:
        tracker = Tracker("deleted", store)
        tracker.deliver(folder)
    else:
        # It fails once, since the run was there a moment ago.
        with suppress(MlflowException):
            tracker.deliver(folder)
        tracker.deliver(folder)
    assert runs_of(tracker, cell) == []
    assert tracker.cells()[cell].status == "DELETED"
    client.restore_run(run.info.run_id)
    tracker.deliver(folder)
    assert_complete(tracker, cell)


def test_a_damaged_folder_holds_up_no_other(store: Path) -> None:
    damaged, sound = make_folder(store, "m1"), make_folder(store, "m2")
    for folder in (damaged, sound):
        run_all(folder, "launch")
    (damaged.path / "run.json").write_text(json.dumps({"name": "incomplete"}))
    said: list[str] = []
    tracker = Tracker("damaged", store)
    delivery = Delivery(tracker, said.append)
    delivery.notify(damaged)
    delivery.notify(sound)
    assert delivery.close(patience_s=60) == ["m1"]
    (line,) = said
    assert str(damaged.path) in line
    assert "remove its folder" in line
    assert_complete(tracker, "m2")


def test_a_folder_is_of_the_experiment_that_ran_it_and_of_any_if_an_older_tfnas_wrote_it(
    tmp_path: Path,
) -> None:
    for cell, experiment in (("a", "ours"), ("b", "theirs"), ("c", "theirs"), ("d", None)):
        folder = make_folder(tmp_path, cell)
        folder.describe(replace(folder.description, experiment=experiment))
    folders = find_cell_folders(tmp_path, pytest.fail)
    own = folders_of_experiment(folders, "ours", {"c"})
    assert [folder.path.name for folder in own] == ["a", "c", "d"]


@pytest.mark.parametrize("name", ["run.json", "delivered.json", "journal.jsonl"])
def test_a_damaged_folder_is_named_and_left_out_of_what_a_launch_finds(tmp_path: Path, name: str) -> None:
    for cell in ("n1", "n2"):
        run_all(make_folder(tmp_path, cell), "launch")
    (tmp_path / "cells" / "n1" / name).write_text("{damaged\n")
    said: list[str] = []
    assert [folder.path.name for folder in find_cell_folders(tmp_path, said.append)] == ["n2"]
    (line,) = said
    assert str(tmp_path / "cells" / "n1" / name) in line


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
    assert has_tried.wait(timeout=PATIENCE_S)
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
    delivery = Delivery(None, print)
    delivery.notify(folder)
    with pytest.raises(AttributeError):
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


def test_files_that_cannot_be_stored_for_want_of_credentials_wait_and_are_named(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Botocore's exceptions are neither MLflow's nor errors of the system."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("experiments.tracking.delivery._RETRY_S", 0.05)
    uri = Tracker("elsewhere", store).uri
    MlflowClient(uri).create_experiment("in-a-bucket", artifact_location="s3://nowhere/x")
    tracker = Tracker("in-a-bucket", store)
    with pytest.raises(UserError, match="Unable to locate credentials"):
        tracker.start_launch("launch", "spec.yaml", "base: {}\n")
    (launch,) = MlflowClient(uri).search_runs([tracker.experiment_id])
    assert launch.info.status == "FAILED"
    folder = make_folder(store, "w1")
    run_all(folder, "launch")
    said: Queue[str] = Queue()
    delivery = Delivery(tracker, said.put)
    delivery.notify(folder)
    assert "Unable to locate credentials" in said.get(timeout=PATIENCE_S)
    assert delivery.close(patience_s=0.1) == ["w1"]
    (run,) = runs_of(tracker, "w1")
    with pytest.raises(UserError, match="Unable to locate credentials"):
        fetch_artifact(run.info.run_id, str(run.info.artifact_uri), "architecture.json", uri, tmp_path)
    with pytest.raises(UserError, match="Unable to locate credentials"):
        find_run(f"run:{run.info.run_id}", store).fetch("architecture.json", "launch it first")


def test_an_experiment_deleted_in_the_store_is_refused(store: Path) -> None:
    tracker = Tracker("deleted", store)
    MlflowClient(tracker.uri).delete_experiment(tracker.experiment_id)
    with pytest.raises(UserError, match="'deleted' was deleted"):
        Tracker("deleted", store)
