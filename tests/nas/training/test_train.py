"""Training of networks: learning, choosing, resuming, and its files."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nas.config import TrainConfig
from nas.data.splits import Split
from nas.data.training_data import load_training_data
from nas.foundation.errors import DivergedError, UserError
from nas.foundation.world import World
from nas.space.derived_network import DerivedNetwork
from nas.space.macro_space import get_space
from nas.space.network_names import find_architecture
from nas.training import training as training_module
from nas.training.trained_network import load_trained_network
from nas.training.training import BEST_FILE, LAST_FILE, METRIC_NAMES, NetworkChoice, lr_factor, run_training
from tests.support.tiny import full_depth_architecture


@pytest.fixture(scope="module")
def architecture(tmp_path_factory):
    path = tmp_path_factory.mktemp("architecture") / "micro.json"
    full_depth_architecture(get_space("micro")).save(path)
    return str(path)


@pytest.fixture(scope="module")
def make_config(architecture):
    def make(**fields):
        defaults = {
            "architecture": architecture,
            "num_epochs": 3,
            "num_warmup_epochs": 1,
            "lr_schedule": "per_step",
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


@pytest.fixture(scope="module", params=[None, 0.9], ids=["plain", "averaged"])
def whole_training(request, make_config, tmp_path_factory):
    config, networks = make_config(ema_decay=request.param), tmp_path_factory.mktemp("whole")
    return config, list(run_training(config, networks_dir=networks)), networks


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
    data = load_training_data(make_config(), 28)
    with torch.no_grad():
        is_right = [
            network(images).argmax(-1) == labels for images, labels in data.test_split.evaluation_batches()
        ]
    assert torch.cat(is_right).double().mean() == pytest.approx(record.metrics["test_accuracy"])


def test_trained_network_says_what_it_is(whole_training):
    _, _, networks = whole_training
    record, network = load_trained_network(networks / LAST_FILE)
    assert record.class_names[0] == "T-shirt/top"
    assert (record.resolution, record.mean, record.std) == (28, (0.2860,), (0.3530,))
    assert record.config["lr"] == 0.1
    assert not network.training
    json.dumps(record.model_dump(mode="json"))


@pytest.mark.parametrize("content", [b"", b"text", "number", "cut"])
def test_damaged_network_file_is_refused(whole_training, tmp_path, content):
    _, _, networks = whole_training
    path = Path(shutil.copy(networks / LAST_FILE, tmp_path))
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


def published_rates(lr, num_epochs, num_warmup_epochs):
    """Torch's cosine, one step per epoch; in warm-up the rate is scaled and then restored."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_epochs)
    rates = []
    for epoch in range(num_epochs):
        (rate,) = scheduler.get_last_lr()
        rates.append(rate * (epoch + 1) / num_warmup_epochs if epoch < num_warmup_epochs else rate)
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(("num_epochs", "num_warmup_epochs"), [(250, 5), (10, 3), (4, 2), (4, 0)])
def test_lr_per_epoch_is_that_of_the_published_schedule(make_config, num_epochs, num_warmup_epochs):
    config = make_config(num_epochs=num_epochs, num_warmup_epochs=num_warmup_epochs, lr_schedule="per_epoch")
    published = published_rates(0.2, num_epochs, num_warmup_epochs)
    for epoch, rate in enumerate(published, start=1):
        assert 0.2 * lr_factor(config, epoch, 0, 7) == pytest.approx(rate)
        assert lr_factor(config, epoch, 6, 7) == lr_factor(config, epoch, 0, 7)


def test_lr_per_step_rises_to_the_full_rate_and_falls_to_zero(make_config):
    config = make_config(num_epochs=10, num_warmup_epochs=2)
    rates = [lr_factor(config, epoch, step, 5) for epoch in range(1, 11) for step in range(5)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    expected = [(1 + math.cos(math.pi * step / 40)) / 2 for step in range(40)]
    assert rates[10:] == pytest.approx(expected)


def test_a_single_epoch_of_warm_up_has_no_effect_per_epoch_and_is_refused(make_config):
    with pytest.raises(ValueError, match=r"num_warmup_epochs: 1; has no effect with lr_schedule per_epoch"):
        make_config(lr_schedule="per_epoch")


@pytest.mark.parametrize("lr_schedule", ["per_epoch", "per_step"])
def test_lr_starts_at_the_full_rate_without_warmup(make_config, lr_schedule):
    assert lr_factor(make_config(num_warmup_epochs=0, lr_schedule=lr_schedule), 1, 0, 5) == 1.0


def test_an_epoch_trains_on_every_image_and_the_last_batch_may_be_smaller(make_config):
    config = make_config(max_train_images=400, batch_size=32)
    data = load_training_data(config, 28)
    sizes = [len(labels) for _, labels in data.train_batches(torch.Generator())]
    assert sizes == [32] * 11 + [8]
    assert sum(sizes) == data.num_train_images == 360


def test_a_last_batch_without_an_image_for_each_process_is_refused(make_config):
    """Not left out: how many processes share the work must not change the result."""
    config = make_config(max_train_images=400, batch_size=51)
    assert load_training_data(config, 28, World(0, 3)).num_train_images == 360
    with pytest.raises(
        UserError, match=r"batch_size: 51; the last batch .* 3 of 360 images, fewer than the 4"
    ):
        load_training_data(config, 28, World(0, 4))


def test_the_last_batch_counts_by_its_own_size(make_config, monkeypatch):
    """Each step's gradient is that of the mean over its batch, as the published code has it."""
    scales = []
    backward = Tensor.backward

    def record(loss, *args, **kwargs):
        scales.append(loss.detach())
        return backward(loss, *args, **kwargs)

    monkeypatch.setattr(Tensor, "backward", record)
    (record_1,) = run_training(make_config(num_epochs=1, num_warmup_epochs=0, lr=1e-9))
    # Without learning, the mean loss of each batch is near the mean loss of all.
    assert len(scales) == 12
    assert float(scales[-1]) == pytest.approx(record_1.metrics["train_loss"], rel=0.1)


def test_without_held_out_images_all_are_trained_on_and_the_test_images_choose_the_epoch(
    make_config, monkeypatch
):
    config = make_config(val_fraction=0)
    data = load_training_data(config, 28)
    assert data.num_train_images == 400
    assert data.val_split is data.test_split
    records = list(run_training(config))
    last = records[-1].metrics
    assert last["test_accuracy"] == max(record.metrics["val_accuracy"] for record in records)
    assert last["num_test_images"] == 1000


def test_drop_connect_is_linear_in_depth_and_counts_the_stem_block():
    architecture = find_architecture("tf-nas-a")
    network = DerivedNetwork(architecture, 10, drop_connect=0.2)
    blocks = [network.stem_block, *network.blocks]
    num_kept = architecture.depth
    expected = [0.2 * k / (num_kept + 1) for k in range(1, num_kept + 2)]
    assert [block.drop_connect for block in blocks] == pytest.approx(expected)
    assert blocks[-1].drop_connect == 0.2


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
        make_config(architecture=str(renamed), device="auto")
    )
    assert training_module.result_fields(make_config()) != training_module.result_fields(
        make_config(resolution=32)
    )
