"""Networks that a search may evaluate: drawn at random, and brought to the target by their widths.

Shapes: N draws, L searchable layers, S stages.

Source: Li and Talwalkar, "Random Search and Reproducibility for Neural Architecture Search", UAI 2019.
"""

from collections.abc import Iterator
from itertools import islice

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from nas.config import SearchConfig
from nas.foundation.errors import UserError
from nas.latency.elasticity import elasticity_scaling
from nas.latency.table import LatencyTable
from nas.space.architecture import Architecture
from nas.space.enumeration import initial_network
from nas.space.macro_space import Space, get_space

MAX_CANDIDATES = 1000
"""Most networks of a pool."""

_NUM_DRAWS = 100_000
"""Draws after which a pool is as large as it gets: small spaces have fewer networks than a pool."""


def draw_pool(config: SearchConfig, table: LatencyTable) -> list[Architecture]:
    """Draws the networks of a pool, until there are enough; see `draw_candidates`.

    Raises:
        UserError: there are fewer than `num_evaluations`.
    """
    target_ms = config.target_latency_ms
    pool = list(islice(draw_candidates(config, table), MAX_CANDIDATES))
    if len(pool) < config.num_evaluations:
        raise UserError(
            f"num_evaluations: {config.num_evaluations}; only {len(pool)} networks were found that meet the "
            f"target of {target_ms:g} ms; lower num_evaluations, or choose a target further from the ends of "
            "the reachable interval"
        )
    return pool


def draw_candidates(config: SearchConfig, table: LatencyTable) -> Iterator[Architecture]:
    """Draws networks, no two with the same operators.

    The depth of each stage is uniform, then the operator of each layer. With elasticity, a network is taken
    if scaling brings it within 1 % of the target. Without, it has its initial widths, and is taken if its
    latency is at most the target.
    """
    target_ms = config.target_latency_ms
    for drawn in _draw_in_reach(config, table):
        if not config.elasticity:
            yield drawn
            continue
        report = elasticity_scaling(drawn, table, target_ms, refine=config.refine_widths)
        if report.meets(target_ms):
            yield report.architecture


def _draw_in_reach(config: SearchConfig, table: LatencyTable) -> Iterator[Architecture]:
    """Random networks at their initial widths, each once, whose latency the target allows."""
    space, target_ms = get_space(config.space), config.target_latency_ms
    ops_NL = _draw_ops(space, np.random.default_rng([config.seed, 1]))
    lowest_N, initial_N, highest_N = _latencies_ms(space, table, ops_NL)
    is_in_reach_N = initial_N <= target_ms
    if config.elasticity:
        is_in_reach_N = (lowest_N <= target_ms) & (target_ms <= highest_N)
    _, first_N = np.unique(ops_NL, axis=0, return_index=True)
    for draw in np.sort(first_N):
        if is_in_reach_N[draw]:
            yield initial_network(space, ops_NL[draw].tolist())


def _draw_ops(space: Space, rng: Generator) -> NDArray[np.int64]:
    """Index of each layer's operator, -1 where it is not kept."""
    ops_NL = rng.integers(len(space.ops), size=(_NUM_DRAWS, len(space.layers)))
    for stage, spec in enumerate(space.stages):
        depths_N = rng.integers(space.min_depth(stage), spec.num_layers + 1, size=_NUM_DRAWS)
        for index, layer in enumerate(space.layers):
            if layer.stage == stage:
                ops_NL[layer.index >= depths_N, index] = -1
    return ops_NL


def _latencies_ms(space: Space, table: LatencyTable, ops_NL: NDArray[np.int64]) -> NDArray[np.float64]:
    """Lowest, initial and highest latency of each draw, over all widths that it may have, (3, N)."""
    total_3N = np.full((3, len(ops_NL)), table.base_latency_ms)
    for index, layer in enumerate(space.layers):
        # The last row is that of a layer that is not kept.
        bounds_O3 = np.zeros((len(space.ops) + 1, 3))
        for row, op in enumerate(space.ops):
            low, high = op.width_interval(layer.in_channels)
            curve_ms = table.curve_ms(layer, op)
            within_ms = curve_ms[low : high + 1]
            bounds_O3[row] = within_ms.min(), curve_ms[op.initial_width(layer.in_channels)], within_ms.max()
        total_3N += bounds_O3[ops_NL[:, index]].T
    return total_3N
