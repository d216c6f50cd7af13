"""What a search or a training will cost, from timing a few of its steps."""

import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from experiments.cells.cell import Input
from experiments.cells.cell_run import with_own_file
from nas.config import SearchConfig, TrainConfig
from nas.data.search_data import load_search_data
from nas.data.training_data import load_training_data
from nas.foundation.identity import fingerprint
from nas.latency.table import LatencyTable
from nas.search.search import run_search
from nas.space.macro_space import get_space
from nas.training.training import NetworkChoice, run_training

_NUM_BATCHES = 2
_COST_FIELDS = {
    *("space", "depth", "elasticity", "dataset", "data_dir", "train_list", "max_train_images"),
    *("augmentation", "batch_size", "arch_fraction", "weight_steps_per_arch_step"),
    *("architecture", "resolution", "val_fraction", "mixed_precision"),
    *("device", "deterministic", "num_threads", "num_data_workers"),
}


@dataclass(frozen=True)
class EpochCost:
    """Seconds of an epoch, alone on the machine; a training's are all alike."""

    warmup_s: float
    joint_s: float

    def left_s(self, config: SearchConfig | TrainConfig, num_done: int, *, warms_up: bool) -> float:
        """Seconds of what is left of a search or a training.

        Args:
            num_done: epochs.
            warms_up: False where it takes the warm-up up from another search.
        """
        num_warmup = max(config.num_warmup_epochs - num_done, 0) if warms_up else 0
        num_joint = config.num_epochs - max(config.num_warmup_epochs, num_done)
        return num_warmup * self.warmup_s + num_joint * self.joint_s


def cost_key(config: SearchConfig | TrainConfig) -> str:
    """Equal for searches, or trainings, whose epochs cost the same."""
    fields = config.model_dump(mode="json", include=_COST_FIELDS)
    if isinstance(config, SearchConfig):
        fields["is_single"] = config.sampling == "single"
    return fingerprint(fields)


def time_epochs(config: SearchConfig | TrainConfig, given: Input) -> EpochCost:
    """Times an epoch of each kind over a few batches, and scales them to all images.

    Args:
        given: as `run_cell` has it.

    Raises:
        UserError: the images cannot be loaded.
    """
    if isinstance(config, SearchConfig):
        assert isinstance(given, LatencyTable)
        return _time_search(config, given)
    assert not isinstance(given, LatencyTable)
    with TemporaryDirectory() as folder:
        return _time_training(with_own_file(config, given, Path(folder)))


def _time_search(config: SearchConfig, table: LatencyTable) -> EpochCost:
    resolution = get_space(config.space).resolution
    probe = _probe(config)
    scale = _num_images(config, resolution) / _num_images(probe, resolution)
    # Twice: the first run also pays for what PyTorch sets up once.
    for _ in range(2):
        warmup, joint = [record.metrics["epoch_seconds"] * scale for record in run_search(probe, table=table)]
    return EpochCost(warmup, joint)


def _time_training(config: TrainConfig) -> EpochCost:
    num_images = math.ceil(1.2 * _NUM_BATCHES * config.batch_size / (1 - config.val_fraction))
    probe = config.model_copy(
        update={
            "max_train_images": min(num_images, config.max_train_images or num_images),
            "num_epochs": 3,
            "num_warmup_epochs": 0,
            "skip_broken_images": False,
        }
    )
    scale = _num_training_images(config) / _num_training_images(probe)
    # The second: the first also pays for what PyTorch sets up once, the last looks at the test images.
    second = next(itertools.islice(run_training(probe), 1, None))
    epoch_s = second.metrics["epoch_seconds"] * scale
    return EpochCost(epoch_s, epoch_s)


def _num_training_images(config: TrainConfig) -> int:
    resolution = NetworkChoice.of(config).resolution
    data = load_training_data(config.model_copy(update={"skip_broken_images": False}), resolution)
    return len(data.train_split)


def _probe(config: SearchConfig) -> SearchConfig:
    """The same search, over two epochs of a few batches."""
    smaller_share = min(config.arch_fraction, 1 - config.arch_fraction)
    needed = max(
        math.ceil(_NUM_BATCHES * config.batch_size / (1 - config.arch_fraction)),
        math.ceil(1.2 * config.batch_size / smaller_share),
    )
    num_images = min(needed, config.max_train_images or needed)
    return config.model_copy(
        update={
            "max_train_images": num_images,
            "num_epochs": 2,
            "num_warmup_epochs": 1,
            "skip_broken_images": False,
        }
    )


def _num_images(config: SearchConfig, resolution: int) -> int:
    data = load_search_data(config.model_copy(update={"skip_broken_images": False}), resolution)
    return data.num_weight_images + data.num_arch_images
