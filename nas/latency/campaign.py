"""Timing operators in place: points are assembled into measurement networks and timed while these run.

A point is an operator at a width. All networks share the base, and they share points with each other.
That separates the machine's drift from the cost of the operators.
"""

import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from nas.latency.drift import Timing, summarize_timings
from nas.latency.entry import OpKey, space_keys
from nas.latency.timing import count_repeats, make_images, make_network, time_parts_ms
from nas.latency.widths import initial_widths
from nas.space.architecture import Architecture, LayerChoice
from nas.space.macro_space import LayerSpec, Space

MEASURED_SHARE = 0.045
"""Largest share of all widths to measure, unless the initial widths are already more."""

PRECISION = 0.02
"""A point is precise once the standard error of its median is below this share of the median."""

MAX_REPEATS = 160
"""Most timings of a point, however noisy it is."""

NUM_WARMUP_RUNS = 2
"""Runs of a network that do not count, on each visit."""

_VISIT_S = 0.2
_VISIT_RUNS = (8, 30)


class TablePoint(NamedTuple):
    """An operator at a width. It is one point, however many layers of the space share it."""

    key: OpKey
    mid_channels: int


Timings = dict[TablePoint | None, Timing]
Shape = tuple[int, int, int, int, str]


class Campaign:
    """The timings so far, and the means to make more.

    Three parallel lists hold the samples of all runs: the point (an index; 0 is the base), the run, the time.

    Args:
        num_classes: outputs of the classifier, which is part of the base.
        max_duration_s: after this time, only points without any timing are timed.
        seed: seeds the composition of the networks.
    """

    def __init__(
        self,
        space: Space,
        device: torch.device,
        *,
        batch_size: int,
        num_classes: int,
        max_duration_s: float = math.inf,
        seed: int = 0,
    ) -> None:
        self.space = space
        self._device = device
        self._num_classes = num_classes
        self._end_s = time.monotonic() + max_duration_s
        self._rng = np.random.default_rng(seed)
        self._images_BCHW = make_images(space.resolution, batch_size, device)
        self._index_of: dict[TablePoint | None, int] = {None: 0}
        self._points: list[int] = []
        self._runs: list[int] = []
        self._times_ms: list[float] = []
        self._num_runs = 0

    @property
    def is_over(self) -> bool:
        """Whether the time for measuring is up."""
        return time.monotonic() > self._end_s

    def visit(self, points: Sequence[TablePoint]) -> None:
        """Times every point in at least one network; known points fill the remaining layers."""
        known = [point for point in self._index_of if point is not None]
        for network_points in compose_networks(self.space, points, known, self._rng):
            if all(point in self._index_of for point in network_points) and self.is_over:
                continue
            self._time(network_points)

    def _time(self, points: Sequence[TablePoint]) -> None:
        """Runs one network for a while and stores the times of its parts."""
        network = make_network(architecture_of(self.space, points), self._num_classes, self._device)
        indices = [self._index_of.setdefault(point, len(self._index_of)) for point in (*points, None)]
        for _ in range(NUM_WARMUP_RUNS):
            warmup_ms = time_parts_ms(network, self._images_BCHW).sum()
        for _ in range(count_runs(warmup_ms * count_repeats(self._device))):
            self._times_ms += time_parts_ms(network, self._images_BCHW).tolist()
            self._points += indices
            self._runs += [self._num_runs] * len(indices)
            self._num_runs += 1

    def timings(self) -> dict[TablePoint | None, Timing]:
        """The timing of each point; the key None holds the base."""
        summary = summarize_timings(np.array(self._times_ms), np.array(self._points), np.array(self._runs))
        return dict(zip(self._index_of, summary, strict=True))

    def imprecise_points(self) -> list[TablePoint]:
        """Points whose median is not precise yet, and which may have more timings."""
        return [
            point
            for point, timing in self.timings().items()
            if point is not None and timing.relative_error > PRECISION and timing.num_repeats < MAX_REPEATS
        ]


def initial_points(space: Space) -> list[TablePoint]:
    """The points that are measured first: five widths of each key, both ends among them."""
    return [
        TablePoint(key, width)
        for key, interval in space_keys(space).items()
        for width in initial_widths(*interval)
    ]


def count_widths(space: Space) -> int:
    """Number of points that there are: all widths of all keys."""
    return sum(high - low + 1 for low, high in space_keys(space).values())


def count_points(space: Space) -> int:
    """Number of points that are measured, at most."""
    return max(int(MEASURED_SHARE * count_widths(space)), len(initial_points(space)))


def count_runs(run_ms: float) -> int:
    """Number of runs of a network in a visit.

    Args:
        run_ms: what one run takes.
    """
    return int(np.clip(_VISIT_S * 1e3 / run_ms, *_VISIT_RUNS))


def compose_networks(
    space: Space, points: Sequence[TablePoint], fillers: Sequence[TablePoint], rng: np.random.Generator
) -> Iterator[tuple[TablePoint, ...]]:
    """Networks at full depth, with one point per layer, that together contain every point at least once.

    Args:
        fillers: points for the layers that remain when all points of a shape are used. If a shape has
            none, its points repeat.
    """
    queues, fillers_of = _by_shape(points, rng), _by_shape(fillers, rng)
    while any(queues.values()):
        network = []
        for layer in space.layers:
            shape = _shape(OpKey.of(layer, space.ops[0]))
            if queues.get(shape):
                network.append(queues[shape].pop())
                fillers_of.setdefault(shape, []).append(network[-1])
            else:
                network.append(fillers_of[shape][rng.integers(len(fillers_of[shape]))])
        yield tuple(network)


def _by_shape(points: Sequence[TablePoint], rng: np.random.Generator) -> dict[Shape, list[TablePoint]]:
    """The points of layers of equal shape, in random order."""
    groups: dict[Shape, list[TablePoint]] = defaultdict(list)
    for index in rng.permutation(len(points)):
        groups[_shape(points[index].key)].append(points[index])
    return dict(groups)


def _shape(key: OpKey) -> Shape:
    return key.resolution, key.in_channels, key.out_channels, key.stride, key.activation


def architecture_of(space: Space, points: Sequence[TablePoint]) -> Architecture:
    """The network at full depth whose layers have these points."""
    stages: list[list[LayerChoice]] = [[] for _ in space.stages]
    for layer, point in zip(space.layers, points, strict=True):
        stages[layer.stage].append(_choice(space, layer, point))
    return Architecture(space=space.name, stages=tuple(tuple(choices) for choices in stages))


def _choice(space: Space, layer: LayerSpec, point: TablePoint) -> LayerChoice:
    for op in space.ops:
        low, high = op.width_interval(layer.in_channels)
        if OpKey.of(layer, op) == point.key and low <= point.mid_channels <= high:
            return LayerChoice(op=op.name, mid_channels=point.mid_channels)
    raise AssertionError(f"no candidate operator of the space is {point}")
