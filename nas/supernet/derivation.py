"""Which layers a derived network may keep to meet a latency target, the most probable first.

Shapes: L searchable layers, O candidates, S stages, D depths of a stage.

Beyond the paper, which derives the most probable network and may find that no widths bring it to the target.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from nas.latency.table import LatencyTable
from nas.space.macro_space import LayerSpec, Space

DROPPED = -1
"""Stands for the operator of a layer that is not kept."""


@dataclass(frozen=True)
class _StageChoice:
    """The operators of a stage's layers, their log-probability, and the latencies that they can have."""

    ops: tuple[int, ...]
    log_probability: float
    low_ms: float
    high_ms: float


def networks_in_reach(
    space: Space,
    log_alpha_LO: Tensor,
    log_beta_SD: Tensor | None,
    table: LatencyTable,
    target_latency_ms: float,
) -> Iterator[list[int]]:
    """All choices of depths, or in the skip space of layers to keep, whose widths allow the target.

    Each layer that is kept has its most probable operator.

    Args:
        log_alpha_LO: log-probabilities; -inf where a layer lacks the candidate. Identity is last, if there.
        log_beta_SD: log-probabilities of depths 0, 1, ...; None in the skip space.

    Yields:
        Index of each layer's operator, `DROPPED` where it is not kept; the most probable choice first.
    """
    stages = [
        list(_stage_choices(space, stage, log_alpha_LO, log_beta_SD, table))
        for stage in range(len(space.stages))
    ]
    total = np.array([[0.0, table.base_latency_ms, table.base_latency_ms]])
    for choices in stages:
        rows = np.array([[each.log_probability, each.low_ms, each.high_ms] for each in choices])
        # Every choice so far with every choice of this stage; the last stage varies fastest.
        total = (total[:, None] + rows).reshape(-1, 3)
    (in_reach,) = np.nonzero((total[:, 1] <= target_latency_ms) & (target_latency_ms <= total[:, 2]))
    for row in in_reach[np.argsort(-total[in_reach, 0], kind="stable")]:
        chosen = np.unravel_index(row, [len(choices) for choices in stages])
        yield [op for choices, index in zip(stages, chosen, strict=True) for op in choices[index].ops]


def _stage_choices(
    space: Space, stage: int, log_alpha_LO: Tensor, log_beta_SD: Tensor | None, table: LatencyTable
) -> Iterator[_StageChoice]:
    indices = [index for index, layer in enumerate(space.layers) if layer.stage == stage]
    rows = log_alpha_LO[indices].tolist()
    layers = space.stage_layers(stage)
    if log_beta_SD is None:
        for ops in itertools.product(*(_kept_or_dropped(space, row) for row in rows)):
            log_probability = sum(row[op] for row, op in zip(rows, ops, strict=True))
            yield _choice(space, layers, ops, log_probability, table)
        return
    leading = [row.index(max(row)) for row in rows]
    for depth, log_probability in enumerate(log_beta_SD[stage].tolist()[: len(layers) + 1]):
        if log_probability > -np.inf:
            ops = (*leading[:depth], *[DROPPED] * (len(layers) - depth))
            yield _choice(space, layers, ops, log_probability, table)


def _kept_or_dropped(space: Space, log_alpha_O: Sequence[float]) -> list[int]:
    """The most probable operator of a layer and, where it has it, identity."""
    num_ops = len(space.ops)
    best = max(range(num_ops), key=lambda op: log_alpha_O[op])
    has_identity = len(log_alpha_O) > num_ops and log_alpha_O[num_ops] > -np.inf
    return [best, num_ops] if has_identity else [best]


def _choice(
    space: Space,
    layers: Sequence[LayerSpec],
    ops: Sequence[int],
    log_probability: float,
    table: LatencyTable,
) -> _StageChoice:
    """Identity, the candidate after the last operator, drops a layer."""
    kept = [op if 0 <= op < len(space.ops) else DROPPED for op in ops]
    low_ms = high_ms = 0.0
    for layer, op in zip(layers, kept, strict=True):
        if op != DROPPED:
            low, high = space.ops[op].width_interval(layer.in_channels)
            curve_ms = table.curve_ms(layer, space.ops[op])[low : high + 1]
            low_ms += float(curve_ms.min())
            high_ms += float(curve_ms.max())
    return _StageChoice(tuple(kept), log_probability, low_ms, high_ms)
