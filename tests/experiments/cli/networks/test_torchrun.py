"""`torchrun tfnas train`: one run in MLflow, one voice on the screen, one line when a process fails."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from mlflow import MlflowClient
from PIL import Image

import tune_configs
from nas.space.macro_space import get_space
from tests.support.limits import PATIENCE_S
from tests.support.tiny import full_depth_architecture

SETTINGS = ("num_epochs=2", "num_warmup_epochs=0", "batch_size=5", "device=cpu", "augmentation=none")
SCRIPTS = Path(sys.executable).parent


@pytest.fixture(autouse=True)
def _own_store(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def architecture(tmp_path):
    path = tmp_path / "small.json"
    full_depth_architecture(get_space("micro")).save(path)
    return path


def torchrun(*architectures, out, settings=SETTINGS, options=()):
    sets = [part for setting in settings for part in ("--set", setting)]
    command = [SCRIPTS / "torchrun", "--standalone", "--nproc-per-node", "2", "--no-python"]
    command += [SCRIPTS / "tfnas", "train", *architectures, "--out", out, *sets, *options]
    return subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=PATIENCE_S)


def test_two_processes_leave_one_finished_run_for_each_network(architecture, tmp_path):
    settings = (*SETTINGS, "max_train_images=60", "lr=0.05")
    out = tmp_path / "out"
    done = torchrun(architecture, "mobilenet_v2", out=out, settings=settings, options=("--json",))
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert [result["name"] for result in results] == ["t0-small", "t0-mobilenet_v2"]
    client = MlflowClient(f"sqlite:///{out}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("training").experiment_id])
    assert sorted(run.info.status for run in runs) == ["FINISHED", "FINISHED"]
    for result in results:
        assert result["metrics"]["num_test_images"] == 1000
        networks = Path(result["networks"])
        assert {path.name for path in networks.iterdir()} >= {"best.pt", "last.pt"}
        # Ordinary batch norm, and no trace of how many trained it.
        weights = torch.load(networks / "last.pt", weights_only=True)["weights"]
        assert not any("module." in name for name in weights)


def test_a_file_of_trainings_runs_one_after_the_other(architecture, tmp_path):
    fields = {
        "num_epochs": 2,
        "num_warmup_epochs": 0,
        "batch_size": 6,
        "max_train_images": 60,
        "device": "cpu",
    }
    spec = {
        "experiment": "trained",
        "architectures": [architecture.name],
        "base": fields,
        "grid": {"seed": [0, 1]},
    }
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(spec))
    done = torchrun(path, out=tmp_path / "out", settings=(), options=("--json",))
    assert done.returncode == 0, done.stderr
    assert [result["name"] for result in json.loads(done.stdout)] == ["t0-small", "t1-small"]
    refused = torchrun(path, out=tmp_path / "out", settings=("lr=0.1",))
    assert refused.returncode == 1
    assert refused.stderr.count("tfnas: ") == 1
    assert "write base.lr=" in refused.stderr


@pytest.mark.slow
def test_the_published_retraining_starts_on_jpegs_at_224_pixels(tmp_path):
    """All but its length, its batch size and its images."""
    spec = yaml.safe_load((Path(tune_configs.__file__).parent / "paper_retrain.yaml").read_text())
    write_images(tmp_path / "images", "jpg", size=256)
    spec["base"] |= {"data_dir": "images", "num_epochs": 1, "num_warmup_epochs": 0, "batch_size": 4}
    spec["base"] |= {"num_data_workers": 1, "device": "cpu"}
    spec["resources"] = {}
    path = tmp_path / "retrain.yaml"
    path.write_text(yaml.safe_dump(spec))
    done = torchrun(path, out=tmp_path / "out", settings=(), options=("--json",))
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert [result["architecture"] for result in results] == ["tf-nas-a", "efficientnet_b0"]
    assert all(math.isfinite(result["metrics"]["test_loss"]) for result in results)


def write_images(folder, suffix, size):
    """Two classes of eight images, for training and for testing."""
    for part in ("train", "test"):
        for label in ("a", "b"):
            (folder / part / label).mkdir(parents=True)
            for number in range(8):
                pixels = np.full((size, size, 3), 20 * number, np.uint8)
                Image.fromarray(pixels).save(folder / part / label / f"{number}.{suffix}")


def test_a_process_that_fails_ends_all_with_one_line(architecture, tmp_path):
    images = tmp_path / "images"
    write_images(images, "png", size=30)
    # A step of two images, one for each process: one of them meets it.
    broken = images / "train" / "a" / "3.png"
    broken.write_text("broken")
    settings = (*SETTINGS, "batch_size=2", "dataset=image_folder", f"data_dir={images}")
    failed = torchrun(architecture, out=tmp_path / "out", settings=settings)
    assert failed.returncode == 1
    said = [line for line in failed.stderr.splitlines() if "tfnas: " in line]
    assert len(said) == 1, failed.stderr
    assert str(broken) in said[0]
    # No traceback but torchrun's own.
    assert "experiments/cli/" not in failed.stderr
