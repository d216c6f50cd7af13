"""Training of networks: learning, choosing, resuming, and its files."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch

from nas.config import TrainConfig
from nas.data.splits import Split
from nas.foundation.errors import DivergedError, UserError
from nas.space.macro_space import get_space
from nas.training import training as training_module
from nas.training.trained_network import load_trained_network
from nas.training.training import BEST_FILE, LAST_FILE, METRIC_NAMES, NetworkChoice, lr_factor, run_training
from tests.support.tiny import full_depth_architecture


@pytest.fixture(scope="module")
def architecture(tmp_path_factory):
    path = tmp_path_factory.mktemp("architecture") / "micro.json"
    full_depth_architecture(get_space("micro")).save(path)
    return str(path)


@pytest.fixture
def make_config(architecture):
    def make(**fields):
        defaults = {
            "architecture": architecture,
            "num_epochs": 3,
            "num_warmup_epochs": 1,
            "batch_size": 32,
            "max_train_images": 400,
            "augmentation": "crop_flip",
            "lr": 0.1,
            "device": "cpu",
        }
        return TrainConfig(**defaults | fields)

    return make


def without_times(records):
    return [
        {name: value for name, value in record.metrics.items() if name != "epoch_seconds"}
        for record in records
    ]


def weights_of(path):
    return torch.load(path, weights_only=True)["weights"]


def assert_equal_weights(first, second):
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


@pytest.fixture(params=[None, 0.9], ids=["plain", "averaged"])
def whole_training(request, make_config, tmp_path):
    config = make_config(ema_decay=request.param)
    return config, list(run_training(config, networks_dir=tmp_path / "whole")), tmp_path / "whole"


def test_training_yields_one_record_an_epoch_and_the_test_numbers_once(whole_training):
    _, records, _ = whole_training
    assert [record.epoch for record in records] == [1, 2, 3]
    assert set(records[-1].metrics) == set(METRIC_NAMES)
    assert not any(name.startswith("test") for record in records[:-1] for name in record.metrics)
    assert all(math.isfinite(value) for record in records for value in record.metrics.values())


def test_training_is_reproducible_to_the_last_bit(whole_training, tmp_path):
    config, records, networks = whole_training
    torch.rand(3)
    again = list(run_training(config, networks_dir=tmp_path / "again"))
    assert without_times(again) == without_times(records)
    assert_equal_weights(weights_of(networks / LAST_FILE), weights_of(tmp_path / "again" / LAST_FILE))


def test_interrupted_training_ends_like_one_that_was_not(whole_training, tmp_path):
    config, records, networks = whole_training
    interrupted = run_training(
        config, checkpoint_dir=tmp_path / "checkpoints", networks_dir=tmp_path / "part"
    )
    next(interrupted)
    next(interrupted)
    interrupted.close()
    shutil.rmtree(tmp_path / "part")
    torch.rand(3)
    resumed = list(
        run_training(config, checkpoint_dir=tmp_path / "checkpoints", networks_dir=tmp_path / "part")
    )
    assert without_times(resumed) == without_times(records)
    for name in (BEST_FILE, LAST_FILE):
        assert_equal_weights(weights_of(networks / name), weights_of(tmp_path / "part" / name))


def test_checkpoint_of_another_training_is_refused(make_config, tmp_path):
    next(run_training(make_config(), checkpoint_dir=tmp_path))
    with pytest.raises(UserError, match="checkpoint of another"):
        next(run_training(make_config(lr=0.2), checkpoint_dir=tmp_path))


def test_training_learns(make_config):
    config = make_config(max_train_images=2000, num_epochs=4, drop_connect=0.0, augmentation="none")
    metrics = list(run_training(config))[-1].metrics
    assert metrics["val_accuracy"] > 0.6
    assert abs(metrics["test_accuracy"] - metrics["val_accuracy"]) < 0.15
    assert metrics["test_top5_accuracy"] > 0.95


def test_test_images_are_seen_once_and_by_the_best_epoch_only(make_config, tmp_path, monkeypatch):
    looked = []
    original = Split.evaluation_batches

    def evaluation_batches(split):
        looked.append(len(split))
        return original(split)

    monkeypatch.setattr(Split, "evaluation_batches", evaluation_batches)
    records = list(run_training(make_config(), networks_dir=tmp_path))
    assert looked == [40, 40, 40, 1000]
    best = max(records, key=lambda record: (record.metrics["val_accuracy"], -record.epoch))
    record, network = load_trained_network(tmp_path / BEST_FILE)
    assert record.epoch == best.epoch == records[-1].metrics["best_epoch"]
    assert record.metrics["test_accuracy"] == records[-1].metrics["test_accuracy"]
    data = training_module.load_training_data(make_config(), 28)
    with torch.no_grad():
        is_right = [
            network(images).argmax(-1) == labels for images, labels in data.test_split.evaluation_batches()
        ]
    assert torch.cat(is_right).double().mean() == pytest.approx(record.metrics["test_accuracy"])


def test_trained_network_says_what_it_is(make_config, tmp_path):
    list(run_training(make_config(num_epochs=2), networks_dir=tmp_path))
    record, network = load_trained_network(tmp_path / LAST_FILE)
    assert record.class_names[0] == "T-shirt/top"
    assert (record.resolution, record.mean, record.std) == (28, (0.2860,), (0.3530,))
    assert record.config["lr"] == 0.1
    assert not network.training
    json.dumps(record.model_dump(mode="json"))


@pytest.mark.parametrize("content", [b"", b"text", "number", "cut"])
def test_damaged_network_file_is_refused(make_config, tmp_path, content):
    path = tmp_path / LAST_FILE
    next(run_training(make_config(), networks_dir=tmp_path))
    if content == "number":
        torch.save(3, path)
    else:
        path.write_bytes(path.read_bytes()[:5000] if content == "cut" else content)
    with pytest.raises(UserError, match="not a trained network"):
        load_trained_network(path)
    with pytest.raises(UserError, match="cannot read"):
        load_trained_network(tmp_path / "gone.pt")


def test_divergence_is_an_error(make_config):
    with pytest.raises(DivergedError, match="epoch 1: "):
        list(run_training(make_config(lr=1e30, grad_clip_norm=1e30)))


def test_mixed_precision_trains_about_as_well(make_config):
    plain, mixed = (
        list(run_training(make_config(num_epochs=2, mixed_precision=mixed)))[-1].metrics
        for mixed in (False, True)
    )
    assert mixed["train_loss"] == pytest.approx(plain["train_loss"], rel=0.1)
    assert mixed["train_loss"] != plain["train_loss"]


def test_lr_rises_to_the_full_rate_and_falls_to_zero(make_config):
    config = make_config(num_epochs=10, num_warmup_epochs=2)
    rates = [lr_factor(config, step / 5, 1 / 5) for step in range(50)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    expected = [(1 + math.cos(math.pi * step / 40)) / 2 for step in range(40)]
    assert rates[10:] == pytest.approx(expected)


def test_lr_starts_at_the_full_rate_without_warmup(make_config):
    assert lr_factor(make_config(num_warmup_epochs=0), 0.0, 0.2) == 1.0


def test_resolution_is_the_spaces_or_the_images_or_as_configured(make_config):
    assert NetworkChoice.of(make_config()).resolution == 28
    assert NetworkChoice.of(make_config(resolution=32)).resolution == 32
    assert NetworkChoice.of(make_config(architecture="tf-nas-a")).resolution == 28
    cifar = make_config(architecture="efficientnet_b0", dataset="cifar10", data_dir="x")
    assert NetworkChoice.of(cifar).resolution == 32


def test_identity_ignores_where_things_are_and_names(make_config, tmp_path, architecture):
    renamed = tmp_path / "renamed.json"
    content = json.loads(Path(architecture).read_text()) | {"name": "another"}
    renamed.write_text(json.dumps(content))
    assert training_module.result_fields(make_config()) == training_module.result_fields(
        make_config(architecture=str(renamed), num_data_workers=2)
    )
    assert training_module.result_fields(make_config()) != training_module.result_fields(
        make_config(resolution=32)
    )
