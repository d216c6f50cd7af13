"""`tfnas export` and `tfnas predict`: from a tracked training to files, a model in MLflow, an answer."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from PIL import Image
from scipy.stats import norm

from experiments.cli import main as cli
from nas.config import TrainConfig
from nas.data.dataset_readers import read_bundled
from nas.foundation.errors import UserError
from nas.space.macro_space import get_space
from nas.training.trained_network import load_trained_network
from tests.support.limits import PATIENCE_S
from tests.support.published import make_config, write_config
from tests.support.tiny import full_depth_architecture


@pytest.fixture(autouse=True)
def _own_store(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    yield
    mlflow.set_tracking_uri(None)


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """A training's output folder, its run, its folder of networks and the architecture file."""
    folder = tmp_path_factory.mktemp("training")
    architecture = folder / "small.json"
    full_depth_architecture(get_space("micro")).save(architecture)
    settings = (
        *("num_epochs=2", "num_warmup_epochs=0", "batch_size=16", "max_train_images=300", "lr=0.05"),
        *("device=cpu", "augmentation=crop_flip"),
    )
    code = call("train", architecture, "--out", folder / "out", *(f"--set={field}" for field in settings))
    assert code == 0
    client = MlflowClient(f"sqlite:///{folder}/out/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("training").experiment_id])
    (networks,) = (folder / "out" / "trainings").glob("*/artifacts")
    return folder / "out", run, networks, architecture


def call(*args):
    """The exit code of the command."""
    before = sys.argv
    sys.argv = ["tfnas", *map(str, args)]
    try:
        cli.main()
    except SystemExit as end:
        return end.code or 0
    finally:
        sys.argv = before


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    images_NHWC, _ = read_bundled(TrainConfig(architecture="unused"), "test")
    path = tmp_path_factory.mktemp("images") / "boot.png"
    Image.fromarray(images_NHWC[0, ..., 0]).save(path)
    return path


@pytest.fixture(scope="module")
def exported(training, tmp_path_factory):
    """What exporting the run as ONNX printed as JSON."""
    out, run, _, _ = training
    result = subprocess.run(
        [
            *(sys.executable, "-c", "from experiments.cli.main import main; main()"),
            *("export", f"run:{run.info.run_id}", "--out", str(out), "--json"),
        ],
        capture_output=True,
        text=True,
        check=True,
        env={name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"},
    )
    assert result.stderr == ""
    return json.loads(result.stdout)


def test_a_failed_export_leaves_the_training_finished(training, monkeypatch):
    out, run, _, _ = training

    def fail(*_, **__):
        raise UserError("the disk is full")

    monkeypatch.setattr(MlflowClient, "log_artifact", fail)
    assert call("export", f"run:{run.info.run_id}", "--out", out) == 2
    after = MlflowClient(f"sqlite:///{out}/mlflow.db").get_run(run.info.run_id).info
    assert (after.status, after.end_time) == ("FINISHED", run.info.end_time)


def test_export_writes_a_network_its_card_and_a_model(training, exported):
    out, run, networks, _ = training
    assert Path(exported["path"]) == out / "exports" / "t0-small.onnx"
    assert exported["max_error"] < 1e-4
    assert exported["checked_on"] == "test images of fashion_mnist_subset"
    card = Path(exported["card"]).read_text()
    record, network = load_trained_network(networks / "best.pt")
    num_parameters = sum(parameter.numel() for parameter in network.parameters())
    low, high = wilson_bounds(record.metrics["test_accuracy"], 1000)
    accuracy = f"{record.metrics['test_accuracy']:.2%} (95 % interval {low:.2%} to {high:.2%}, n = 1000)"
    for said in (
        accuracy,
        f"| {num_parameters:,} |",
        run.info.run_id,
        "Zalando SE",
        "one thread of",
        "space micro",
        "Ankle boot",
    ):
        assert said in card
    client = MlflowClient(f"sqlite:///{out}/mlflow.db")
    after = client.get_run(run.info.run_id)
    assert (after.info.status, after.info.end_time) == ("FINISHED", run.info.end_time)
    artifacts = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
    assert {"t0-small.onnx", "t0-small.onnx.md"} <= artifacts


def test_model_in_mlflow_loads_and_gives_the_networks_logits(training, exported, image):
    out, _, networks, _ = training
    mlflow.set_tracking_uri(f"sqlite:///{out}/mlflow.db")
    pixels = torch.from_numpy(np.array(Image.open(image).convert("RGB"))).permute(2, 0, 1)[None] / 255
    record, network = load_trained_network(networks / "best.pt")
    with torch.no_grad():
        expected = network((pixels - record.mean[0]) / record.std[0])
        model = mlflow.pytorch.load_model(exported["model_uri"])
        torch.testing.assert_close(model(pixels), expected, atol=1e-4, rtol=0)
    signature = mlflow.models.get_model_info(exported["model_uri"]).signature
    assert signature.inputs.inputs[0].shape == (-1, 3, 28, 28)


@pytest.mark.slow
def test_model_in_mlflow_is_served(training, exported, image):
    out, _, networks, _ = training
    pixels = np.array(Image.open(image).convert("RGB"), dtype=np.float32).transpose(2, 0, 1)[None] / 255
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = Path(sys.executable).parent
    server = subprocess.Popen(
        [
            *(folder / "mlflow", "models", "serve", "--model-uri", exported["model_uri"]),
            *("--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)),
        ],
        env=os.environ
        | {"MLFLOW_TRACKING_URI": f"sqlite:///{out}/mlflow.db", "PATH": f"{folder}:{os.environ['PATH']}"},
        start_new_session=True,
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/ping", server)
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations",
            json.dumps({"inputs": pixels.tolist()}).encode(),
            {"Content-Type": "application/json"},
        )
        logits = json.load(urllib.request.urlopen(request, timeout=60))["predictions"]
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()
    record, network = load_trained_network(networks / "best.pt")
    with torch.no_grad():
        expected = network((torch.from_numpy(pixels) - record.mean[0]) / record.std[0])
    np.testing.assert_allclose(logits, expected.numpy(), atol=1e-4)


def wait_for(url, server):
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        assert server.poll() is None
        try:
            urllib.request.urlopen(url, timeout=5)
        except OSError:
            time.sleep(0.3)
        else:
            return
    raise TimeoutError(url)


def test_predictions_name_the_broken_image_and_answer_the_rest(training, exported, image, tmp_path, capsys):
    broken = tmp_path / "broken.png"
    broken.write_text("no")
    assert call("predict", exported["path"], image, broken, image, "--top", 2, "--json") == 1
    out, err = capsys.readouterr()
    assert err == f"tfnas: {broken}: not an image, or damaged\n"
    first, second = json.loads(out)
    assert first == second
    assert len(first["classes"]) == 2
    assert first["classes"][0]["probability"] >= first["classes"][1]["probability"]
    assert call("predict", exported["path"], image) == 0
    assert first["classes"][0]["class"] in capsys.readouterr().out


def test_a_published_config_names_the_architecture_of_a_checkpoint(training, tmp_path):
    _, _, networks, _ = training
    space = get_space("micro")
    config = write_config(make_config(full_depth_architecture(space), space), tmp_path / "model.config")
    args = ("--checkpoint", networks / "best.pt", "--format", "state-dict", "--file", tmp_path / "weights.pt")
    assert call("export", config, *args) == 0
    assert (tmp_path / "weights.pt").exists()
    other = full_depth_architecture(space, space.op("k5_e6_se"))
    write_config(make_config(other, space), config)
    assert call("export", config, *args) == 2


def test_files_can_be_exported_without_a_run(training, tmp_path, capsys):
    _, _, networks, architecture = training
    path = tmp_path / "weights.pt"
    args = ("--checkpoint", networks / "last.pt", "--format", "state-dict", "--file", path)
    assert call("export", architecture, *args, "--json") == 0
    assert json.loads(capsys.readouterr().out)["model_uri"] is None
    assert set(torch.load(path, weights_only=True)) == set(
        load_trained_network(networks / "last.pt")[1].state_dict()
    )


def test_wrong_input_is_one_line_and_exit_code_2(training, tmp_path, capsys):
    out, _, networks, architecture = training
    cases = {
        ("export", architecture): "an architecture has no weights",
        ("export", "efficientnet_b0", "--checkpoint", networks / "best.pt"): "not efficientnet_b0",
        ("export", architecture, "--checkpoint", tmp_path / "gone.pt"): "cannot read a trained network",
        ("export", "run:0123", "--out", out): "correct the id",
        ("predict", tmp_path / "gone.onnx", "image.png"): "No such file",
    }
    for args, message in cases.items():
        assert call(*args) == 2
        err = capsys.readouterr().err
        assert message in err
        assert err.count("\n") == 1


def wilson_bounds(share, num_trials):
    """Both roots p of (p - share)^2 = z^2 p (1 - p) / n: Wilson's interval by its definition."""
    z_squared = norm.ppf(0.975) ** 2
    return np.sort(np.roots([1 + z_squared / num_trials, -2 * share - z_squared / num_trials, share**2]))
