"""Training of one network from scratch: a derived network or a baseline.

Shapes: B batch, C channels, H W space, K classes.

Source: TF-NAS, retraining of derived networks.
"""

import copy
import hashlib
import math
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from nas.config import TrainConfig
from nas.data.datasets import DATASETS
from nas.data.image_lists import Listing
from nas.data.splits import Split
from nas.data.training_data import load_training_data
from nas.foundation.checkpoint import load_newest_checkpoint, save_checkpoint
from nas.foundation.device import gpu_settings, resolve_device, spare_compiler_import, take_step
from nas.foundation.errors import DivergedError, UserError
from nas.foundation.identity import fingerprint
from nas.foundation.world import ALONE, World, check_device
from nas.space.architecture import Architecture
from nas.space.baselines import make_network
from nas.space.macro_space import get_space
from nas.space.network_names import ARCHITECTURE_NAMES, find_architecture
from nas.training.sync_batch_norm import synchronize_batch_norm
from nas.training.trained_network import TrainedNetwork

METRIC_NAMES = (
    "train_loss",
    "train_accuracy",
    "val_loss",
    "val_accuracy",
    "val_top5_accuracy",
    "lr",
    "epoch_seconds",
    "best_epoch",
    "test_loss",
    "test_accuracy",
    "test_top5_accuracy",
    "num_test_images",
)
"""Names of an epoch's metrics. Test metrics are those of the best epoch, and only in the last epoch."""

BEST_FILE = "best.pt"
LAST_FILE = "last.pt"

RESULTS_VERSION = 2
"""Raise it when the same config, network and images no longer give the same numbers.

See `nas.search.search_identity.RESULTS_VERSION`.
"""

_FIELDS_WITHOUT_EFFECT = {
    *("architecture", "resolution", "data_dir", "train_list", "arch_list", "test_list", "download"),
    *("device", "num_data_workers"),
}
"""Fields that locate inputs, which are identified by their content, or that only affect speed."""

_DEFAULT_RESOLUTION = 224
_NUM_TOP = 5


@dataclass(frozen=True)
class TrainRecord:
    """One epoch of a training, counted from 1. See `METRIC_NAMES`; accuracies are fractions of 1."""

    epoch: int
    metrics: dict[str, float]


def run_training(
    config: TrainConfig,
    *,
    checkpoint_dir: Path | None = None,
    networks_dir: Path | None = None,
    world: World = ALONE,
    listing: Listing | None = None,
) -> Iterator[TrainRecord]:
    """Trains a network and yields a record after each epoch.

    The best epoch is the first with the highest accuracy on the held-out training images (or, without
    any, on the test images). It is evaluated on the test images at the end; the last record has the
    numbers. Each epoch reseeds torch's global random generators.

    Args:
        checkpoint_dir: folder for a checkpoint after each epoch. If it holds one already, the training
            resumes from there, and first yields the records of the completed epochs.
        networks_dir: folder for the networks of the best and of the last epoch, `best.pt` and
            `last.pt`; see `nas.training.trained_network`.
        world: the processes that share each batch, each in its own call. Only the folders of the first
            process are read and written.
        listing: the image files, from `list_images`, for many trainings on the same images; None to list
            them now.

    Raises:
        UserError: network, data or checkpoint do not fit the config.
        DivergedError: the loss became infinite or NaN.
    """
    training = Training(config, world, listing)
    with closing(training.data.pool):
        training.load(checkpoint_dir)
        if not world.is_first:
            checkpoint_dir = networks_dir = None
        if training.records and networks_dir is not None:
            training.save_networks(networks_dir)
        yield from training.records
        while training.epoch < config.num_epochs:
            # Batches have few sizes, so trying each algorithm once pays.
            with gpu_settings(training.device, tunes_convolutions=True):
                record = training.run_epoch()
            if networks_dir is not None:
                training.save_networks(networks_dir)
            if checkpoint_dir is not None:
                training.save(checkpoint_dir)
            yield record


@dataclass(frozen=True)
class NetworkChoice:
    """The network that a config names, and the resolution of its images, in pixels."""

    network: Architecture | str
    resolution: int

    @classmethod
    def of(cls, config: TrainConfig) -> "NetworkChoice":
        """Finds the network.

        Raises:
            UserError: there is no such network, or its file is damaged.
        """
        architecture = find_architecture(config.architecture)
        if config.resolution is not None:
            resolution = config.resolution
        elif architecture is not None and config.architecture not in ARCHITECTURE_NAMES:
            resolution = get_space(architecture.space).resolution
        else:
            resolution = DATASETS[config.dataset].resolution or _DEFAULT_RESOLUTION
        return cls(architecture or config.architecture, resolution)

    def identity(self) -> dict[str, Any]:
        """Everything that determines the network, as JSON. The name of an architecture is not part of it."""
        network = self.network
        if isinstance(network, Architecture):
            return {
                "network": network.model_dump(mode="json", exclude={"name"}),
                "resolution": self.resolution,
            }
        return {"network": network, "resolution": self.resolution}


def result_fields(config: TrainConfig) -> dict[str, Any]:
    """The fields of a config, and the network, that determine the result of a training."""
    fields = config.model_dump(mode="json", exclude=_FIELDS_WITHOUT_EFFECT)
    return fields | NetworkChoice.of(config).identity()


def training_identity(config: TrainConfig, data_fingerprint: str) -> dict[str, Any]:
    """Everything that determines the result of a training; identifies its cell and its checkpoints."""
    return {
        "results_version": RESULTS_VERSION,
        "config": result_fields(config),
        "data": data_fingerprint,
    }


class Training:
    """The state of a training between two epochs, and the step from one to the next.

    Attributes:
        records: one per completed epoch.
        network: the network in training.
    """

    def __init__(self, config: TrainConfig, world: World = ALONE, listing: Listing | None = None) -> None:
        self.config = config
        self.world = world
        self.device = resolve_device(config.device)
        check_device(self.device, world)
        torch.set_num_threads(config.num_threads)
        self.choice = NetworkChoice.of(config)
        self.data = load_training_data(config, self.choice.resolution, world, listing)
        # Once, now: the file of the architecture may change or move while the training runs.
        self._identity = training_identity(config, self.data.fingerprint)
        if world.spread(self._identity) != self._identity:
            raise UserError(
                f"data_dir: process {world.rank} has other images or another network than process 0; "
                "give all processes the same"
            )
        torch.manual_seed(config.seed)
        network = make_network(
            self.choice.network,
            self.data.num_classes,
            self.choice.resolution,
            dropout=config.dropout,
            drop_connect=config.drop_connect,
        )
        if world.size > 1:
            network = synchronize_batch_norm(network, self.device)
        self.network = network.to(self.device).to(memory_format=torch.channels_last)
        self._average = _make_average(self.network, config.ema_decay)
        spare_compiler_import()
        self._optimizer = torch.optim.SGD(
            self.network.parameters(),
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )
        self.records: list[TrainRecord] = []
        self._best_weights: dict[str, Tensor] = {}

    @property
    def epoch(self) -> int:
        """Number of completed epochs."""
        return len(self.records)

    @property
    def best_record(self) -> TrainRecord:
        """The first epoch of the highest `val_accuracy`."""
        return max(self.records, key=lambda record: (record.metrics["val_accuracy"], -record.epoch))

    def run_epoch(self) -> TrainRecord:
        """Runs the next epoch and appends its record. The last epoch also evaluates the test images.

        Raises:
            DivergedError: the loss is no longer finite.
        """
        start_s = time.perf_counter()
        epoch = self.epoch + 1
        torch.manual_seed(_derive_seed(self.config.seed, epoch, f"dropout of process {self.world.rank}"))
        metrics = self._train(epoch) | _with_prefix(
            "val", self._evaluate(self._evaluated, self.data.val_split)
        )
        self._check_finite(epoch, metrics)
        self.records.append(TrainRecord(epoch, metrics))
        if self.best_record.epoch == epoch:
            self._best_weights = _copy_weights(self._evaluated)
        metrics["best_epoch"] = float(self.best_record.epoch)
        if epoch == self.config.num_epochs:
            metrics |= _with_prefix("test", self._test_best())
            metrics["num_test_images"] = float(len(self.data.test_split))
        metrics["epoch_seconds"] = time.perf_counter() - start_s
        return self.records[-1]

    def _test_best(self) -> dict[str, float]:
        """Numbers of the best epoch on the test images; known if they chose it."""
        if self.data.val_split is not self.data.test_split:
            return self._evaluate(self._best_network(), self.data.test_split)
        best = self.best_record.metrics
        return {name.removeprefix("val_"): value for name, value in best.items() if name.startswith("val_")}

    # Steps

    def _train(self, epoch: int) -> dict[str, float]:
        network = self._averaging_network()
        network.train()
        sums_2 = torch.zeros(2, dtype=torch.float64, device=self.device)
        generator = torch.Generator().manual_seed(_derive_seed(self.config.seed, epoch, "batches"))
        lr = 0.0
        num_images, batch_size = self.data.num_train_images, self.config.batch_size
        for step, (images_BCHW, labels_B) in enumerate(self.data.train_batches(generator)):
            lr = self._set_lr(epoch, step)
            num_in_batch = min(batch_size, num_images - step * batch_size)
            logits_BK, loss = self._step(network, images_BCHW, labels_B, num_in_batch)
            sums_2 += torch.stack([loss, (logits_BK.argmax(-1) == labels_B).sum()])
        loss_mean, accuracy = (self.world.sum(sums_2) / num_images).tolist()
        return {"train_loss": loss_mean, "train_accuracy": accuracy, "lr": lr}

    def _averaging_network(self) -> nn.Module:
        """The network, with gradients averaged over all processes."""
        if self.world.size == 1:
            return self.network
        # Set up anew each epoch, because its first step adds in another order than later ones. A resumed
        # training must add in the same order as an uninterrupted one.
        return DistributedDataParallel(self.network, forward_sync_buffers=False)

    def _step(
        self, network: nn.Module, images_BCHW: Tensor, labels_B: Tensor, num_images: int
    ) -> tuple[Tensor, Tensor]:
        """Makes one step; returns the logits, and the sum of the losses over this process's samples.

        Args:
            num_images: of all processes together.
        """
        self._optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            logits_BK = network(images_BCHW)
        loss = F.cross_entropy(
            logits_BK.float(), labels_B, label_smoothing=self.config.label_smoothing, reduction="sum"
        )
        # With this factor, the mean over processes is the mean over the batch, whatever their shares.
        (loss * (self.world.size / num_images)).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), self.config.grad_clip_norm)
        take_step(self._optimizer)
        if self._average is not None:
            self._average.update_parameters(self.network)
        return logits_BK.detach(), loss.detach()

    @torch.no_grad()
    def _evaluate(self, network: nn.Module, split: Split) -> dict[str, float]:
        """Loss (without smoothing), accuracy and, with more than five classes, top-5 accuracy."""
        network.eval()
        sums_3 = torch.zeros(3, dtype=torch.float64, device=self.device)
        for images_BCHW, labels_B in split.evaluation_batches():
            with self._autocast():
                logits_BK = network(images_BCHW).float()
            is_right_BK = logits_BK.topk(min(_NUM_TOP, logits_BK.shape[1])).indices == labels_B[:, None]
            loss = F.cross_entropy(logits_BK, labels_B, reduction="sum")
            sums_3 += torch.stack([loss, is_right_BK[:, 0].sum(), is_right_BK.sum()])
        loss, accuracy, top5_accuracy = (self.world.sum(sums_3) / len(split)).tolist()
        metrics = {"loss": loss, "accuracy": accuracy}
        return metrics | ({"top5_accuracy": top5_accuracy} if self.data.num_classes > _NUM_TOP else {})

    def _set_lr(self, epoch: int, step: int) -> float:
        num_steps = math.ceil(self.data.num_train_images / self.config.batch_size)
        lr = self.config.lr * lr_factor(self.config, epoch, step, num_steps)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        return lr

    @property
    def _evaluated(self) -> nn.Module:
        return self.network if self._average is None else self._average.module

    def _best_network(self) -> nn.Module:
        network = copy.deepcopy(self._evaluated)
        network.load_state_dict(self._best_weights)
        return network

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.mixed_precision)

    def _check_finite(self, epoch: int, metrics: dict[str, float]) -> None:
        for name in ("train_loss", "val_loss"):
            if not math.isfinite(metrics[name]):
                raise DivergedError(f"epoch {epoch}: {name} is {metrics[name]}; lower lr")

    # Files

    def save_networks(self, directory: Path) -> None:
        """Writes the networks of the best and of the last epoch; see `nas.training.trained_network`."""
        directory.mkdir(parents=True, exist_ok=True)
        best, last = self.best_record, self.records[-1]
        # The last record holds the test metrics, which are those of the best network.
        test = {name: value for name, value in last.metrics.items() if "test_" in name}
        own = {name: value for name, value in last.metrics.items() if name not in test}
        self._describe(best, best.metrics | test).save(directory / BEST_FILE, self._best_weights)
        is_best = last.epoch == best.epoch
        weights = _copy_weights(self._evaluated)
        self._describe(last, last.metrics if is_best else own).save(directory / LAST_FILE, weights)

    def _describe(self, record: TrainRecord, metrics: dict[str, float]) -> TrainedNetwork:
        dataset = DATASETS[self.config.dataset]
        return TrainedNetwork(
            network=self.choice.network,
            class_names=self.data.class_names,
            resolution=self.choice.resolution,
            mean=dataset.mean,
            std=dataset.std,
            dataset=self.config.dataset,
            epoch=record.epoch,
            metrics=metrics,
            config=self.config.model_dump(mode="json"),
        )

    def save(self, directory: Path) -> None:
        """Writes a checkpoint of everything that the next epoch depends on."""
        state = {
            "network": self.network.state_dict(),
            "average": None if self._average is None else self._average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "best_weights": self._best_weights,
            "records": [asdict(record) for record in self.records],
        }
        save_checkpoint(directory, self.epoch, state, fingerprint(self._identity))

    def load(self, directory: Path | None) -> None:
        """Resumes from the newest intact checkpoint in the first process's folder, if there is one.

        Raises:
            UserError: the checkpoint belongs to another training.
        """
        state = None
        if self.world.is_first and directory is not None:
            state = load_newest_checkpoint(directory, fingerprint(self._identity))
        state = self.world.spread(state)
        if state is None:
            return
        self.network.load_state_dict(state["network"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._best_weights = state["best_weights"]
        self.records = [TrainRecord(**record) for record in state["records"]]


def lr_factor(config: TrainConfig, epoch: int, step: int, num_steps: int) -> float:
    """Learning rate of a step as a share of `config.lr`; see `config.lr_schedule`.

    Args:
        epoch: counted from 1.
        step: of the epoch, counted from 0.
        num_steps: number of steps per epoch.
    """
    num_epochs, num_warmup = config.num_epochs, config.num_warmup_epochs
    if config.lr_schedule == "per_epoch":
        rise = min(epoch / num_warmup, 1.0) if num_warmup else 1.0
        return rise * _cosine((epoch - 1) / num_epochs)
    epochs_done = epoch - 1 + step / num_steps
    if epochs_done < num_warmup:
        return min((epochs_done + 1 / num_steps) / num_warmup, 1.0)
    return _cosine((epochs_done - num_warmup) / (num_epochs - num_warmup))


def _cosine(progress: float) -> float:
    return (1 + math.cos(math.pi * progress)) / 2


def _make_average(network: nn.Module, decay: float | None) -> AveragedModel | None:
    if decay is None:
        return None
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)  # type: ignore[no-untyped-call]


def _copy_weights(network: nn.Module) -> dict[str, Tensor]:
    # Copy the whole state, because some torchvision networks check its version metadata.
    weights = copy.deepcopy(network.state_dict())
    for name, tensor in weights.items():
        weights[name] = tensor.cpu()
    return weights


def _with_prefix(prefix: str, metrics: dict[str, float]) -> dict[str, float]:
    return {f"{prefix}_{name}": value for name, value in metrics.items()}


def _derive_seed(seed: int, epoch: int, purpose: str) -> int:
    """A seed for one epoch, so no generator state has to outlive the epoch."""
    digest = hashlib.sha256(f"{seed}/{epoch}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:7], "big")
