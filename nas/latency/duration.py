"""How long it takes to measure a table, roughly, from what is measured and without measuring."""

import numpy as np
import torch

from nas.latency.campaign import (
    MAX_REPEATS,
    NUM_WARMUP_RUNS,
    architecture_of,
    compose_networks,
    count_points,
    count_runs,
    initial_points,
)
from nas.latency.measurement import MAX_DURATION_S, NUM_VISITS
from nas.latency.timing import count_repeats, default_batch_size
from nas.space.derived_network import DerivedNetwork
from nas.space.macro_space import Space
from nas.space.profile import count_macs

_CPU_MACS_PER_S = 15e9
"""Multiply-accumulates of a CPU thread, within a factor of two."""

_LAYER_S = 1e-4
"""What a layer takes beside them: calls and memory."""

_BUILD_S = 0.05
"""What it takes to build a network."""


def foresee_duration_s(
    space: Space, device_type: str, *, batch_size: int | None, num_threads: int
) -> tuple[float, float]:
    """How long `measure_table` takes if no timing has to be repeated, and if as many as possible have to be.

    Args:
        device_type: `cpu` or `cuda`.
        batch_size: images at a time; None for the default of the device.
    """
    points = initial_points(space)
    networks = list(compose_networks(space, points, [], np.random.default_rng(0)))
    run_s = len(space.layers) * _LAYER_S
    if device_type == "cpu":
        with torch.device("meta"):
            macs = count_macs(DerivedNetwork(architecture_of(space, networks[0]), 1000), space.resolution)
        run_s += macs * (batch_size or default_batch_size(device_type)) / num_threads / _CPU_MACS_PER_S
    run_s *= count_repeats(torch.device(device_type))
    num_runs = count_runs(1e3 * run_s)
    visits_s = len(networks) * ((NUM_WARMUP_RUNS + num_runs) * run_s + _BUILD_S)
    all_points_s = visits_s * count_points(space) / len(points)
    # When the time is up, only points without any timing are still visited.
    low_s, high_s = (min(num * all_points_s, MAX_DURATION_S) for num in (NUM_VISITS, MAX_REPEATS / num_runs))
    return max(low_s, visits_s), max(high_s, visits_s)
