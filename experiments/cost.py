"""What a search will cost, from timing a few of its steps."""

import math
from dataclasses import dataclass

from nas.config import SearchConfig
from nas.data import load_search_data
from nas.identity import fingerprint
from nas.latency import LatencyTable
from nas.search import run_search
from nas.space import get_space

_NUM_BATCHES = 2
_COST_FIELDS = (
    *("space", "depth", "elasticity", "dataset", "data_dir", "train_list", "max_train_images"),
    *("augmentation", "batch_size", "arch_fraction", "weight_steps_per_arch_step"),
    *("device", "num_threads", "num_data_workers"),
)


@dataclass(frozen=True)
class EpochCost:
    """Seconds of an epoch, alone on the machine."""

    warmup_s: float
    joint_s: float

    def search_s(self, config: SearchConfig) -> float:
        """Seconds of a whole search."""
        num_joint = config.num_epochs - config.num_warmup_epochs
        return config.num_warmup_epochs * self.warmup_s + num_joint * self.joint_s


def cost_key(config: SearchConfig) -> str:
    """Equal for searches whose epochs cost the same."""
    fields = config.model_dump(mode="json", include=set(_COST_FIELDS))
    return fingerprint(fields | {"is_single": config.sampling == "single"})


def time_epochs(config: SearchConfig, table: LatencyTable) -> EpochCost:
    """Times a warm-up and a joint epoch over a few batches, and scales them to all images.

    Raises:
        UserError: the images cannot be loaded.
    """
    resolution = get_space(config.space).resolution
    probe = _probe(config)
    scale = _num_images(config, resolution) / _num_images(probe, resolution)
    # Twice: the first run also pays for what PyTorch sets up once.
    for _ in range(2):
        warmup, joint = [record.metrics["epoch_seconds"] * scale for record in run_search(probe, table=table)]
    return EpochCost(warmup, joint)


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
