"""Training by several processes: the same as by one at equal batch size, and as crash-exact."""

import os
import signal
import time

import pytest
import torch
from torch import nn
from torch.multiprocessing import ProcessExitedException

from nas.config import TrainConfig
from nas.foundation.errors import PeerError, UserError
from nas.foundation.world import World
from nas.space.macro_space import get_space
from nas.training import training as training_module
from nas.training.sync_batch_norm import CpuSyncBatchNorm
from nas.training.training import BEST_FILE, LAST_FILE, Training, run_training
from tests.support.tiny import full_depth_architecture
from tests.support.worlds import run_in_world

BATCH_SIZE = 33
"""Odd, so that two processes have unequal shares of every batch."""

TOLERANCES = {"without batch norm": 2e-6, "batch norm": 1e-3}
"""Largest difference of a weight, after 22 steps and after 3.

Batch norm makes training chaotic: each of the first steps multiplies a difference by about ten,
whether it comes from a sum in another order or from a rounding of the initial weights.
"""


@pytest.fixture(scope="module")
def make_config(tmp_path_factory):
    path = tmp_path_factory.mktemp("architecture") / "micro.json"
    full_depth_architecture(get_space("micro")).save(path)

    def make(**fields):
        defaults = {
            "architecture": str(path),
            "num_epochs": 2,
            "num_warmup_epochs": 1,
            "lr_schedule": "per_step",
            "batch_size": BATCH_SIZE,
            "max_train_images": 120,
            "lr": 0.02,
            "device": "cpu",
        }
        return TrainConfig(**defaults | fields)

    return make


def make_plain_network(network, num_classes, resolution, *, dropout, drop_connect):
    """A network without batch norm and dropout, whose steps are sums over samples."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(16 * 6 * 6, num_classes),
    )  # fmt: skip


original_make_network = training_module.make_network


def train_all(world, jobs, folder):
    for name, config in jobs.items():
        plain = name == "without batch norm"
        training_module.make_network = make_plain_network if plain else original_make_network
        training = Training(config, world)
        metrics = [training.run_epoch().metrics for _ in range(config.num_epochs - 1)]
        weights = {"network": training.network.state_dict(), "evaluated": training._evaluated.state_dict()}
        torch.save({"metrics": metrics, **weights}, folder / f"{name}-{world.rank}-of-{world.size}.pt")
    training_module.make_network = original_make_network


def run_parts(world, jobs, config, folder):
    """Whatever needs two processes and does not kill them, since starting them takes seconds."""
    train_all(world, jobs, folder)
    train(world, config, folder / "whole")
    normalize(world, folder)
    differ(world, jobs["batch norm"], folder)
    fail_in_second(world, folder)


@pytest.fixture(scope="module")
def resumable(make_config):
    return make_config(num_epochs=3, ema_decay=0.9, augmentation="crop_flip", max_train_images=190)


@pytest.fixture(scope="module")
def folder(make_config, resumable, tmp_path_factory):
    """What two processes, and one, left of the same work."""
    same = {"dropout": 0.0, "drop_connect": 0.0, "augmentation": "paper"}
    jobs = {
        # 38 held-out images: the last batch of an evaluation has 5.
        "without batch norm": make_config(**same, num_epochs=3, max_train_images=380),
        "batch norm": make_config(**same, ema_decay=0.9, lr=0.002),
        "dropout": make_config(mixed_precision=True),
    }
    folder = tmp_path_factory.mktemp("results")
    (folder / "whole").mkdir()
    run_in_world(run_parts, jobs, resumable, folder)
    train_all(World(), jobs, folder)
    normalize(World(), folder)
    return folder


def result(folder, name, rank, size):
    return torch.load(folder / f"{name}-{rank}-of-{size}.pt")


@pytest.mark.parametrize("name", TOLERANCES)
def test_two_processes_train_like_one(folder, name):
    one, two = (result(folder, name, 0, size) for size in (1, 2))
    tolerance = TOLERANCES[name]
    for kind in ("network", "evaluated"):
        for key, tensor in one[kind].items():
            torch.testing.assert_close(two[kind][key], tensor, rtol=tolerance, atol=tolerance)
    for one_metrics, two_metrics in zip(one["metrics"], two["metrics"], strict=True):
        assert one_metrics.keys() == two_metrics.keys()
        for key in one_metrics.keys() - {"epoch_seconds"}:
            assert two_metrics[key] == pytest.approx(one_metrics[key], rel=tolerance, abs=tolerance), key


@pytest.mark.parametrize("name", ["without batch norm", "batch norm", "dropout"])
def test_both_processes_have_the_same_weights_and_metrics(folder, name):
    first, second = (result(folder, name, rank, 2) for rank in (0, 1))
    for kind in ("network", "evaluated"):
        assert all(torch.equal(second[kind][key], tensor) for key, tensor in first[kind].items())
    for first_metrics, second_metrics in zip(first["metrics"], second["metrics"], strict=True):
        assert {**first_metrics, "epoch_seconds": 0} == {**second_metrics, "epoch_seconds": 0}


def train_and_kill(world, config, folder, epoch):
    """Trains; each process kills itself in the third step of an epoch."""
    original = Training._step
    num_steps = 0

    def step(self, *args):
        nonlocal num_steps
        num_steps = num_steps + 1 if self.epoch + 1 == epoch else 0
        if num_steps == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, *args)

    Training._step = step
    train(world, config, folder)


def train(world, config, folder):
    records = list(
        run_training(config, checkpoint_dir=folder / "checkpoints", networks_dir=folder, world=world)
    )
    torch.save([record.metrics for record in records], folder / f"metrics-{world.rank}.pt")


def assert_killed_ends_like_whole(config, whole, killed, size):
    with pytest.raises(ProcessExitedException, match="SIGKILL"):
        run_in_world(train_and_kill, config, killed, 3, size=size)
    assert len(list((killed / "checkpoints").iterdir())) == 2
    run_in_world(train, config, killed, size=size)
    for name in (BEST_FILE, LAST_FILE):
        first, second = (torch.load(folder / name)["weights"] for folder in (whole, killed))
        assert all(torch.equal(tensor, second[key]) for key, tensor in first.items())
    for rank in range(size):
        numbers = [torch.load(folder / f"metrics-{rank}.pt") for folder in (whole, killed)]
        for metrics in (*numbers[0], *numbers[1]):
            del metrics["epoch_seconds"]
        assert numbers[0] == numbers[1]


def test_two_killed_processes_end_like_two_that_were_not(folder, resumable, tmp_path):
    assert_killed_ends_like_whole(resumable, folder / "whole", tmp_path, size=2)


@pytest.mark.slow
def test_three_killed_processes_end_like_three_that_were_not(resumable, tmp_path):
    # The sum of three numbers depends on their order, that of two does not.
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    run_in_world(train, resumable, whole, size=3)
    assert_killed_ends_like_whole(resumable, whole, killed, size=3)


def normalize(world, folder):
    """Forward and backward of a share of a batch, saved for comparison."""
    generator = torch.Generator().manual_seed(0)
    features = 100 + torch.randn(7, 5, 3, 3, generator=generator)
    factors = torch.randn(7, 5, 3, 3, generator=generator)
    norm = (nn.BatchNorm2d if world.size == 1 else CpuSyncBatchNorm)(5)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2.0, generator=generator)
    share = world.share(7)
    own = features[share].clone().requires_grad_()
    out = norm(own)
    (out.square() * factors[share]).sum().backward()
    gradients = {"weight": world.sum(norm.weight.grad), "bias": world.sum(norm.bias.grad)}
    content = {"out": out.detach(), "gradient": own.grad, **gradients, **dict(norm.named_buffers())}
    torch.save(content, folder / f"norm-{world.rank}-of-{world.size}.pt")


def test_batch_norm_of_two_processes_is_that_of_their_whole_batch(folder):
    whole, *shares = (result(folder, "norm", rank, size) for rank, size in ((0, 1), (0, 2), (1, 2)))
    for name in ("out", "gradient"):
        joined = torch.cat([share[name] for share in shares])
        torch.testing.assert_close(joined, whole[name], rtol=1e-4, atol=1e-4)
    for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        for share in shares:
            torch.testing.assert_close(share[name], whole[name], rtol=1e-4, atol=1e-4)


def differ(world, config, folder):
    """The second process has fewer images."""
    try:
        Training(config.model_copy(update={"max_train_images": 120 - world.rank}), world)
    except UserError as error:
        (folder / f"difference-{world.rank}.txt").write_text(str(error))


def test_processes_that_see_other_images_are_refused(folder):
    (message,) = (path.read_text() for path in folder.glob("difference-*.txt"))
    assert message.startswith("data_dir: process 1 has other images or another network than process 0; ")


def fail_in_second(world, folder):
    try:
        with world.failing_together():
            if world.rank == 1:
                raise UserError("b.jpg: not an image, or damaged")
            while world.store.get("failure") == b"none":
                time.sleep(0.01)
            raise RuntimeError("connection closed by peer")
    except (UserError, PeerError) as error:
        (folder / f"failure-{world.rank}.txt").write_text(f"{type(error).__name__}: {error}")


def test_first_failure_is_known_to_all_processes(folder):
    own, others = ((folder / f"failure-{rank}.txt").read_text() for rank in (1, 0))
    assert own == "UserError: b.jpg: not an image, or damaged"
    assert others == "PeerError: process 1: b.jpg: not an image, or damaged"


def test_a_batch_smaller_than_the_world_is_refused(make_config):
    with pytest.raises(
        UserError,
        match="batch_size: 2; the last batch of an epoch has 2 of 110 images, fewer than the 3 processes",
    ):
        Training(make_config(batch_size=2), World(0, 3))
