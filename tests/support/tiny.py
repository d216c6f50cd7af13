"""Spaces that a test can search in a second, and what tests make of a space: tables, networks, searches."""

import random

import numpy as np
import torch
from torch import Tensor

from nas.config import SearchConfig
from nas.latency.entry import LatencyEntry, space_keys
from nas.latency.table import LatencyTable, Provenance
from nas.search.records import EpochRecord
from nas.space.architecture import Architecture, LayerChoice
from nas.space.macro_space import SPACES, Space, StageSpec
from nas.space.operators import CandidateOp
from nas.supernet.supernet import Depth, Supernet

NUM_CLASSES = 5

TINY = Space(
    name="tiny",
    resolution=16,
    stem_channels=8,
    stem_stride=2,
    stem_block_channels=4,
    # The first stage could be left out as a whole; the others keep one layer at least.
    stages=(
        StageSpec(4, 2, 1, "relu"),
        StageSpec(6, 3, 2, "swish"),
        StageSpec(8, 1, 1, "swish"),
    ),
    head_channels=16,
)
"""Six layers at 8x8 and 4x4 pixels."""

TINY_AT_8 = Space(
    name="tiny_at_8",
    resolution=8,
    stem_channels=8,
    stem_stride=1,
    stem_block_channels=4,
    stages=(
        StageSpec(6, 2, 2, "relu"),
        StageSpec(8, 2, 2, "swish"),
        StageSpec(8, 2, 2, "swish"),
    ),
    head_channels=16,
)
"""Six layers from 8x8 down to 1x1 pixels."""

TINY_SPACES = (TINY, TINY_AT_8)


def register_tiny_spaces() -> None:
    """Makes the tiny spaces known by name, in a process that a test starts."""
    for tiny in TINY_SPACES:
        if tiny.name not in SPACES:
            SPACES.register(tiny.name, tiny)


OPS = TINY.ops
"""The operators of the tiny spaces: the paper's."""

SKIP = len(OPS)
"""Index of identity among the candidates."""


def make_dense_table(space: Space, *, seed: int = 0, base_ms: float = 2.0) -> LatencyTable:
    """A synthetic table with an entry for each width from 1: rising, with steps, different for each key."""
    rng = np.random.default_rng(seed)
    entries = []
    for key, (_, high) in space_keys(space).items():
        pixels = key.resolution**2
        per_channel_ms = 2e-6 * pixels * (key.in_channels + key.kernel_size**2 + key.out_channels)
        increments_ms = per_channel_ms * rng.exponential(1.0, high)
        # Widths that are no multiple of 8 cost as much as the next one, on some machines.
        increments_ms[::8] += per_channel_ms * 3
        latency_ms = 0.02 + np.cumsum(increments_ms)
        entries.append(
            LatencyEntry(key=key, widths=tuple(range(1, high + 1)), latency_ms=tuple(latency_ms.tolist()))
        )
    provenance = Provenance(source="synthetic", device_type="cpu", device_name="none")
    return LatencyTable(space=space.name, base_ms=base_ms, provenance=provenance, entries=tuple(entries))


def full_depth_architecture(space: Space, op: CandidateOp | None = None) -> Architecture:
    """Every layer kept, all with one operator (the space's first one) at its initial width."""
    op = op or space.ops[0]
    return Architecture(
        space=space.name,
        stages=tuple(
            tuple(
                LayerChoice(op=op.name, mid_channels=op.initial_width(layer.in_channels))
                for layer in space.stage_layers(stage)
            )
            for stage in range(len(space.stages))
        ),
    )


def make_supernet(space: Space, depth: Depth, *, seed: int = 0) -> Supernet:
    """A supernet with random widths, alphas and betas."""
    supernet = Supernet(space, NUM_CLASSES, depth, seed=seed)
    rng = random.Random(seed)
    widths = [
        [rng.randint(high // 2, high) for high in _max_widths(supernet, layer)]
        for layer in range(len(space.layers))
    ]
    supernet.set_widths(widths)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in supernet.arch_parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
    supernet.normalize_arch_parameters()
    return supernet


def _max_widths(supernet: Supernet, layer: int) -> list[int]:
    return [len(supernet.candidate(layer, op).depthwise) for op in range(SKIP)]


def make_images(space: Space, batch_size: int = 8, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    images_BCHW = torch.randn(batch_size, 3, space.resolution, space.resolution, generator=generator)
    return images_BCHW.to(memory_format=torch.channels_last)


def make_config(**fields: object) -> SearchConfig:
    """A search of the tiny space of a second: 40 images for weights and 10 for alpha and beta."""
    base = {
        "space": TINY.name,
        "dataset": "fashion_mnist_subset",
        "max_train_images": 50,
        "augmentation": "crop_flip",
        "batch_size": 10,
        "target_latency_ms": 2.3,
        "num_epochs": 4,
        "num_warmup_epochs": 1,
        "weight_lr": 0.1,
        "device": "cpu",
    }
    return SearchConfig.model_validate(base | fields)


def assert_identical(one: list[EpochRecord], other: list[EpochRecord]) -> None:
    """To the last bit, in all but the time that it took."""
    assert [record.epoch for record in one] == [record.epoch for record in other]
    for a, b in zip(one, other, strict=True):
        assert a.architecture == b.architecture
        assert a.evaluations == b.evaluations
        assert a.arrays.keys() == b.arrays.keys()
        for name, array in a.arrays.items():
            assert array.dtype == b.arrays[name].dtype
            assert array.tobytes() == b.arrays[name].tobytes(), name
        metrics = [record.metrics | {"epoch_seconds": 0.0} for record in (a, b)]
        assert metrics[0] == metrics[1]
