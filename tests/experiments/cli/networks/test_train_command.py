"""`tfnas train`: runs in MLflow, resuming after a kill, and what it says to wrong input."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from experiments.cli import main as cli
from nas.config import DataConfig
from nas.data.image_source import fingerprint_data
from nas.space.macro_space import get_space
from nas.training.trained_network import load_trained_network
from tests.support.class_folders import write_class_folders
from tests.support.limits import PATIENCE_S
from tests.support.published import make_config, write_config
from tests.support.tiny import full_depth_architecture

SMALL = (
    "num_epochs=2",
    "num_warmup_epochs=0",
    "batch_size=16",
    "max_train_images=200",
    "lr=0.05",
    "device=cpu",
)


@pytest.fixture
def architecture(tmp_path):
    path = tmp_path / "small.json"
    full_depth_architecture(get_space("micro")).save(path)
    return path


@pytest.fixture(autouse=True)
def _own_store(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    yield
    # An export sets it.
    mlflow.set_tracking_uri(None)


def arguments(*architectures, out, settings=SMALL, options=()):
    sets = [part for setting in settings for part in ("--set", setting)]
    return ["train", *map(str, architectures), "--out", str(out), *sets, *options]


def run(monkeypatch, capsys, args):
    """Exit code, stdout and stderr of the command."""
    monkeypatch.setattr(sys, "argv", ["tfnas", *args])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    out, err = capsys.readouterr()
    return caught.value.code or 0, out, err


def runs_of(out, experiment="training"):
    client = MlflowClient(f"sqlite:///{out}/mlflow.db")
    found = client.get_experiment_by_name(experiment)
    return client, client.search_runs([found.experiment_id])


def test_training_ends_as_one_finished_run_with_epochs_and_networks(
    architecture, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "out"
    code, _, _ = run(monkeypatch, capsys, arguments(architecture, out=out))
    assert code == 0
    client, (mlflow_run,) = runs_of(out)
    assert mlflow_run.info.status == "FINISHED"
    assert mlflow_run.info.run_name == "t0-small"
    assert mlflow_run.data.tags["tfnas.kind"] == "train"
    assert mlflow_run.data.params["lr"] == "0.05"
    assert mlflow_run.data.params["resolution"] == "28"
    history = client.get_metric_history(mlflow_run.info.run_id, "val_accuracy")
    assert [metric.step for metric in history] == [1, 2]
    assert 0 <= mlflow_run.data.metrics["test_accuracy"] <= 1
    artifacts = {artifact.path for artifact in client.list_artifacts(mlflow_run.info.run_id)}
    assert artifacts == {"best.pt", "last.pt", "architecture.json", "config.yaml"}


def test_finished_training_is_not_run_again(architecture, tmp_path, monkeypatch, capsys):
    args = arguments(architecture, out=tmp_path / "out", options=("--json",))
    _, first, _ = run(monkeypatch, capsys, args)
    monkeypatch.setattr("experiments.cells.training_cell.run_training", None)
    code, again, _ = run(monkeypatch, capsys, args)
    assert code == 0
    assert json.loads(again) == json.loads(first)
    assert len(runs_of(tmp_path / "out")[1]) == 1


def test_killed_training_ends_like_one_that_was_not(architecture, tmp_path, monkeypatch, capsys):
    settings = (*SMALL[1:], "num_epochs=6")
    whole = arguments(architecture, out=tmp_path / "whole", settings=settings, options=("--json",))
    _, expected, _ = run(monkeypatch, capsys, whole)

    out = tmp_path / "killed"
    args = arguments(architecture, out=out, settings=settings, options=("--json",))
    process = subprocess.Popen(
        [sys.executable, "-c", "from experiments.cli.main import main; main()", *args],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not list(out.glob("trainings/*/checkpoints/checkpoint-00002-*.pt")):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    code, resumed, _ = run(monkeypatch, capsys, args)
    assert code == 0
    numbers = [json.loads(text)[0]["metrics"] for text in (expected, resumed)]
    for metrics in numbers:
        del metrics["epoch_seconds"]
    assert numbers[0] == numbers[1]
    client, (mlflow_run,) = runs_of(out)
    assert mlflow_run.info.status == "FINISHED"
    history = client.get_metric_history(mlflow_run.info.run_id, "train_loss")
    assert [metric.step for metric in history] == [1, 2, 3, 4, 5, 6]


def test_network_of_a_search_is_taken_from_its_run(architecture, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    out.mkdir()
    client = MlflowClient(f"sqlite:///{out}/mlflow.db")
    experiment_id = client.create_experiment("ablation", artifact_location=(out / "mlartifacts").as_uri())
    search = client.create_run(experiment_id, run_name="bi-sink-T4.0-s0")
    reference = f"run:{search.info.run_id}"
    code, _, err = run(monkeypatch, capsys, arguments(reference, out=out))
    assert code == 2
    assert "has no architecture.json" in err
    assert err.count("\n") == 1

    client.log_artifact(
        search.info.run_id, str(architecture.rename(architecture.with_name("architecture.json")))
    )
    for name, value in {"dataset": "fashion_mnist_subset", "data_dir": None, "space": "micro"}.items():
        client.log_param(search.info.run_id, name, value)
    code, _, _ = run(monkeypatch, capsys, arguments(reference, out=out))
    assert code == 0
    _, runs = runs_of(out, "ablation")
    (training,) = [run for run in runs if run.data.tags.get("tfnas.kind") == "train"]
    assert training.info.run_name == "t0-bi-sink-T4.0-s0"
    assert training.data.tags["tfnas.search_run"] == search.info.run_id
    assert training.data.params["architecture"] == reference


def test_a_network_is_trained_on_the_images_of_its_search_and_others_are_said(
    architecture, tmp_path, monkeypatch, capsys
):
    images = write_class_folders(tmp_path / "flowers", ("daisy", "rose"), 20)
    fields = {"dataset": "image_folder", "data_dir": str(images), "space": "micro"}
    out = tmp_path / "out"
    out.mkdir()
    client = MlflowClient(f"sqlite:///{out}/mlflow.db")
    experiment_id = client.create_experiment("mine", artifact_location=(out / "mlartifacts").as_uri())
    config = DataConfig(dataset="image_folder", data_dir=images)
    tags = {"tfnas.data_fingerprint": fingerprint_data(config)}
    search = client.create_run(experiment_id, run_name="search", tags=tags).info.run_id
    for name, value in (fields | {"target_latency_ms": 4.0}).items():
        client.log_param(search, name, value)
    client.log_metric(search, "derived_latency_ms", 4.0)
    path = architecture.rename(architecture.with_name("architecture.json"))
    client.log_artifact(search, str(path))

    code, said, _ = run(monkeypatch, capsys, arguments(f"run:{search}", out=out))
    assert code == 0
    assert (
        f"Images: image_folder in {images}: 28 training images, 4 held out, 8 test images; 2 classes" in said
    )
    (own,) = [run for run in runs_of(out, "mine")[1] if run.data.tags.get("tfnas.kind") == "train"]
    assert own.data.params["data_dir"] == str(images)
    (networks,) = out.glob("trainings/*/artifacts/best.pt")
    assert load_trained_network(networks)[0].class_names == ("daisy", "rose")
    assert "searched on" not in said

    # Relative to where the command runs, as paths of a shell are.
    monkeypatch.chdir(write_class_folders(tmp_path / "elsewhere" / "shirts", ("a", "b"), 20).parent)
    settings = (*SMALL, "data_dir=shirts")
    code, said, _ = run(monkeypatch, capsys, arguments(f"run:{search}", out=out, settings=settings))
    assert code == 0
    assert "searched on other images (image_folder 'flowers')" in said
    runs = [run for run in runs_of(out, "mine")[1] if run.data.params.get("data_dir", "").endswith("shirts")]
    (other,) = runs
    assert other.data.params["data_dir"] == str(tmp_path / "elsewhere" / "shirts")
    exported = ("export", f"run:{other.info.run_id}", "--out", str(out), "--format", "state-dict", "--json")
    code, said, _ = run(monkeypatch, capsys, exported)
    assert code == 0
    card = Path(json.loads(said)["card"]).read_text()
    assert "The search that found the network used other images: image_folder 'flowers'." in card


def test_divergence_fails_the_run_with_its_reason(architecture, tmp_path, monkeypatch, capsys):
    settings = (*SMALL, "lr=1e30", "grad_clip_norm=1e30")
    code, printed, _ = run(monkeypatch, capsys, arguments(architecture, out=tmp_path, settings=settings))
    assert code == 1
    assert "failed: DivergedError: epoch 1" in printed
    _, (mlflow_run,) = runs_of(tmp_path)
    assert mlflow_run.info.status == "FAILED"
    assert mlflow_run.data.tags["tfnas.failure"].startswith("DivergedError: epoch 1")


def test_broken_image_is_named_in_one_line(architecture, tmp_path, monkeypatch, capsys):
    images = tmp_path / "images"
    for part in ("train", "test"):
        write_class_folders(images / part, ("a", "b"), 4)
    (images / "train" / "b" / "000.png").write_text("broken")
    settings = (*SMALL, "dataset=image_folder", f"data_dir={images}", "batch_size=2")
    code, _, err = run(monkeypatch, capsys, arguments(architecture, out=tmp_path, settings=settings))
    assert code == 2
    broken = images / "train" / "b" / "000.png"
    assert err.splitlines()[-1].startswith(f"tfnas: {broken}: not an image")
    assert len(err.splitlines()) == 1


def test_a_published_config_trains_as_the_architecture_file_of_the_same_network(
    architecture, tmp_path, monkeypatch, capsys
):
    space = get_space("micro")
    config = write_config(make_config(full_depth_architecture(space), space), tmp_path / "model.config")
    args = arguments(architecture, config, out=tmp_path / "out", options=("--json",))
    code, out, _ = run(monkeypatch, capsys, args)
    assert code == 0
    ours, published = json.loads(out)
    assert published["architecture"] == str(config)
    assert published["metrics"]["test_accuracy"] == ours["metrics"]["test_accuracy"]
    assert published["metrics"]["num_parameters"] == ours["metrics"]["num_parameters"]


@pytest.mark.parametrize(
    ("reference", "settings", "message"),
    [
        ("resnet50", (), "'resnet50': no such file"),
        ("efficientnet_b0", ("lrr=1",), "--set: lrr: unknown field"),
        ("efficientnet_b0", ("lr",), "--set lr: write FIELD=VALUE"),
        ("efficientnet_b0", ("lr=fast",), "--set: lr: 'fast'"),
        ("efficientnet_b0", ("architecture=x",), "give the architecture as ARCH"),
        ("efficientnet_b0", ("dataset=cifar10", "data_dir=/nowhere"), "/nowhere: no such folder"),
        ("efficientnet_b0", ("max_train_images=100",), "batch_size: 512; only 90 images"),
        ("run:0123", (), "no MLflow store"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(reference, settings, message, tmp_path, monkeypatch, capsys):
    args = arguments(reference, out=tmp_path / "out", settings=settings)
    code, _, err = run(monkeypatch, capsys, args)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not Path(tmp_path / "out" / "trainings").exists() or "batch_size" in err
