"""TrainingCell: one training of a grid."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from experiments.cells.cell import COMMON_COST_FIELDS, Cell
from experiments.cells.epoch_cost import NUM_TIMED_BATCHES, EpochCost
from experiments.cells.image_survey import ImageSurvey, listed_counts, survey
from nas.config import TrainConfig
from nas.data.image_lists import Listing
from nas.data.image_source import list_images
from nas.data.training_data import PARTS, fingerprint_training_data, load_training_data
from nas.foundation.world import ALONE, World
from nas.space.architecture import Architecture
from nas.space.network_names import ARCHITECTURE_NAMES, find_architecture
from nas.space.profile import count_macs, count_parameters
from nas.training.processes import lead
from nas.training.trained_network import load_trained_network
from nas.training.training import (
    BEST_FILE,
    RESULTS_VERSION,
    NetworkChoice,
    TrainRecord,
    run_training,
    training_identity,
)

if TYPE_CHECKING:
    from experiments.cells.cell_folder import CellFolder

SEARCH_RUN_TAG = "tfnas.search_run"
SEARCHED_ON_TAG = "tfnas.searched_on"

_PHASE = "training"


@dataclass(frozen=True)
class TrainingCell(Cell[TrainConfig, Architecture | None]):
    """One training.

    Attributes:
        name: for instance `t0-efficientnet_b0`, with the seed first.
        config: `architecture` may be a downloaded file.
        architecture: as the person named it, `run:RUN_ID` for instance.
        search_run: the MLflow run that found the network, if one did.
        searched_on: the images of that search, if they were other ones.
    """

    architecture: str
    search_run: str | None = None
    searched_on: str | None = None

    kind = "train"
    config_type = TrainConfig
    results_version = RESULTS_VERSION
    noun = "training"
    plural = "trainings"
    subject_heading = "network"
    result_heading = "best epoch"
    cost_fields = COMMON_COST_FIELDS | {"architecture", "resolution", "val_fraction"}

    @classmethod
    def run(
        cls,
        config: TrainConfig,
        given: Architecture | None,
        folder: "CellFolder",
        *,
        listing: Listing | None = None,
        warmups_dir: Path | None = None,
        world: World = ALONE,
    ) -> Iterator[TrainRecord]:
        """See `Cell`."""
        folder.write_config(config)
        config = _with_own_file(config, given, folder.artifacts)
        lead(config, world)
        records = run_training(
            config,
            checkpoint_dir=folder.checkpoints,
            networks_dir=folder.artifacts,
            world=world,
            listing=listing,
        )
        for record in records:
            if record.epoch == config.num_epochs:
                size = _measure_size(folder.artifacts / BEST_FILE)
                yield replace(record, metrics=record.metrics | size)
            else:
                yield record

    @classmethod
    def list_images(cls, config: TrainConfig) -> Listing:
        """See `Cell`."""
        return list_images(config, PARTS)

    @property
    def phases(self) -> Sequence[str]:
        """See `Cell`; all epochs of a training cost the same."""
        return [_PHASE] * self.config.num_epochs

    @classmethod
    def look_at_images(cls, config: TrainConfig, resolution: int, listing: Listing) -> ImageSurvey:
        """See `Cell`; finding broken images takes as long as an epoch, so the trial does that."""
        if config.skip_broken_images:
            images, counts = fingerprint_training_data(config, listing), listed_counts(listing)
        else:
            data = load_training_data(config, resolution, listing=listing)
            images = data.fingerprint
            counts = {
                "training images": data.num_train_images,
                **({"held out": len(data.val_split)} if config.val_fraction else {}),
                "test images": len(data.test_split),
            }
        return survey(config, listing, images, counts)

    @classmethod
    def time_epochs(cls, config: TrainConfig, given: Architecture | None, listing: Listing) -> EpochCost:
        """See `Cell`."""
        with TemporaryDirectory() as folder:
            config = _with_own_file(config, given, Path(folder))
            probe = _probe(config)
            # To count images, none has to be decoded; the probe decodes a few.
            counted = config.model_copy(update={"skip_broken_images": False})
            scale = _num_images(counted, listing) / _num_images(probe, listing)
            # The second: the first also pays for PyTorch's one-time setup, the last for the test images.
            second = next(itertools.islice(run_training(probe, listing=listing), 1, None))
        epoch_s = second.metrics["epoch_seconds"] * scale
        return EpochCost({_PHASE: epoch_s})

    @classmethod
    def resolution(cls, config: TrainConfig) -> int:
        """That of the config, of the network's space or of the dataset; its architecture may be a file."""
        return NetworkChoice.of(config).resolution

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that determines the result."""
        return training_identity(self.config, self.data_fingerprint) | {"search run": self.search_run}

    @property
    def input_name(self) -> str:
        """The network's file or name."""
        return self.config.architecture

    def load_input(self) -> Architecture | None:
        """The architecture; None for a network of torchvision."""
        return find_architecture(self.config.architecture)

    @property
    def subject(self) -> str:
        """The network, as the person named it."""
        return self.architecture

    def result(self, metrics: Mapping[str, float]) -> str:
        """The best epoch so far."""
        return f"{metrics['best_epoch']:.0f}" if "best_epoch" in metrics else "-"

    @property
    def network(self) -> NetworkChoice:
        """The network that it trains."""
        return NetworkChoice.of(self.config)

    @property
    def fields(self) -> dict[str, Any]:
        """See `Cell`; with the network as the person named it."""
        return super().fields | {"architecture": self.architecture, "resolution": self.network.resolution}

    @property
    def tags(self) -> dict[str, str]:
        """The search that found the network, and its images if they were other ones."""
        tags = {SEARCH_RUN_TAG: self.search_run, SEARCHED_ON_TAG: self.searched_on}
        return {name: value for name, value in tags.items() if value is not None}


def _with_own_file(config: TrainConfig, architecture: Architecture | None, folder: Path) -> TrainConfig:
    """The same training with its network in a file of this folder: its own may be on another machine."""
    if architecture is None:
        return config
    path = folder / "architecture.json"
    architecture.save(path)
    if config.architecture in ARCHITECTURE_NAMES:
        return config
    return config.model_copy(update={"architecture": str(path)})


def _measure_size(path: Path) -> dict[str, float]:
    """What a trained network costs on any device."""
    record, network = load_trained_network(path)
    return {
        "num_parameters": float(count_parameters(network)),
        "num_macs": float(count_macs(network, record.resolution)),
        "size_bytes": float(path.stat().st_size),
    }


def _probe(config: TrainConfig) -> TrainConfig:
    """The same training, over three epochs of a few batches."""
    needed = math.ceil(1.2 * NUM_TIMED_BATCHES * config.batch_size / (1 - config.val_fraction))
    return config.model_copy(
        update={
            "max_train_images": min(needed, config.max_train_images or needed),
            "num_epochs": 3,
            "num_warmup_epochs": 0,
        }
    )


def _num_images(config: TrainConfig, listing: Listing) -> int:
    return len(load_training_data(config, TrainingCell.resolution(config), listing=listing).train_split)
