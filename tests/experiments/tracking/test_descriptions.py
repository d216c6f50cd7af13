"""What MLflow shows about a run beside its numbers: origin, inputs and a note."""

from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from experiments.cells import origin
from experiments.cells.cell_folder import CellFolder, RunDescription
from experiments.cells.search_cell import SearchCell
from experiments.tracking.notes import NOTE_TAG, note_on_experiment
from experiments.tracking.tracker import Tracker
from nas.config import SearchConfig
from nas.search.health import HealthCheck


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Tracker:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return Tracker("described", tmp_path_factory.mktemp("out"))


def folder_of(out: Path, seed: int) -> CellFolder:
    config = SearchConfig(
        space="micro",
        target_latency_ms=1.0,
        latency_table="/home/me/table.json",
        data_dir=str(out / "flowers"),
        dataset="image_folder",
        seed=seed,
    )
    cell = SearchCell(f"s{seed}", {"seed": seed}, config, "1" * 64, {}, "2" * 64)
    folder = CellFolder.of(out, cell)
    folder.describe(RunDescription.of(cell))
    folder.artifacts.mkdir()
    folder.journal.start("launch")
    folder.journal.add_epoch(1, {"val_accuracy": 0.25, "derived_latency_ms": 0.9})
    return folder


def run_of(tracker: Tracker, folder: CellFolder) -> Run:
    condition = f"tags.`tfnas.cell` = '{folder.description.cell}'"
    (run,) = MlflowClient(tracker.uri).search_runs([tracker.experiment_id], condition)
    return run


def test_images_and_table_are_inputs_by_fingerprint_once_and_without_paths(
    tracker: Tracker, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path, 0)
    for _ in range(2):
        tracker.deliver(folder)
        (folder.path / "delivered.json").unlink()
        tracker._run_ids.clear()
    inputs = [each.dataset for each in run_of(tracker, folder).inputs.dataset_inputs]
    assert sorted((each.name, each.digest) for each in inputs) == [
        ("flowers", "1" * 32),
        ("latency of micro", "2" * 32),
    ]
    assert not any("/" in each.source for each in inputs)


def test_source_and_user_are_shown_and_the_commit_of_an_unchanged_source(
    tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(origin, "_commit", lambda: "c0ffee")
    monkeypatch.setattr("getpass.getuser", lambda: "ada")
    folder = folder_of(tmp_path, 1)
    tracker.deliver(folder)
    spec = tmp_path / "folder" / "spec.yaml"
    spec.parent.mkdir()
    spec.write_text("experiment: x")
    launch = MlflowClient(tracker.uri).get_run(tracker.start_launch("launch", spec.name, spec.read_text()))
    shown = [
        {name: value for name, value in run.data.tags.items() if name.startswith(("mlflow.s", "mlflow.u"))}
        for run in (run_of(tracker, folder), launch)
    ]
    common = {"mlflow.user": "ada", "mlflow.source.type": "LOCAL", "mlflow.source.git.commit": "c0ffee"}
    assert shown == [
        common | {"mlflow.source.name": "tfnas"},
        common | {"mlflow.source.name": "tfnas launch spec.yaml"},
    ]


def test_an_edited_source_and_an_unknown_user_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> str:
        raise KeyError("uid 1000")

    monkeypatch.setattr("getpass.getuser", unknown)
    answers = {"ls-files": "origin.py", "status": " M origin.py", "rev-parse": "c0ffee"}
    monkeypatch.setattr(origin, "_git", lambda command, *_: answers[command])
    origin._commit.cache_clear()
    assert origin.origin_tags("tfnas").keys() == {"mlflow.source.name", "mlflow.source.type"}
    origin._commit.cache_clear()


def test_a_note_tells_setting_result_and_health_and_stays_as_a_person_writes_it(
    tracker: Tracker, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path, 2)
    folder.write_health(
        [HealthCheck("latency", False, "the latency is 5 % too high", "raise latency_weight")]
    )
    folder.journal.finish("FINISHED")
    tracker.deliver(folder)
    note = run_of(tracker, folder).data.tags[NOTE_TAG]
    for text in ("seed 2", "accuracy 0.2500", "0.9 ms", "Unhealthy", "raise latency_weight"):
        assert text in note
    client = MlflowClient(tracker.uri)
    client.set_tag(run_of(tracker, folder).info.run_id, NOTE_TAG, "mine")
    folder.journal.start("launch 2")
    folder.journal.finish("FAILED", "out of memory")
    tracker.deliver(folder)
    assert run_of(tracker, folder).data.tags[NOTE_TAG] == "mine"


def test_the_note_of_an_experiment_is_cut_to_what_mlflow_takes_and_replaced(tracker: Tracker) -> None:
    client = MlflowClient(tracker.uri)
    for lines in (["long " * 2000], ["short"]):
        note_on_experiment(client, tracker.experiment_id, lines)
    assert client.get_experiment(tracker.experiment_id).tags[NOTE_TAG].startswith("short\n")
    client.set_experiment_tag(tracker.experiment_id, NOTE_TAG, "mine")
    note_on_experiment(client, tracker.experiment_id, ["other"])
    assert client.get_experiment(tracker.experiment_id).tags[NOTE_TAG] == "mine"
