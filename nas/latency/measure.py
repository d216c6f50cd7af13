"""Measuring a lookup table in minutes: operators timed in place, few widths, drift taken out.

An operator alone in a loop finds its weights and activations in the cache, an operator in a
network does not. So operators are timed where they run: measurement networks are composed of
the points (operators at widths) that are to be measured, run end to end, and each layer
is timed within them. What a table sums up is then what a network spends. Every network has the
base in common and shares points with others, which tells the machine's drift from the operators' cost.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import isotonic_regression

from nas.architecture import Architecture, LayerChoice
from nas.latency.drift import Timing, summarize_timings
from nas.latency.entry import LatencyEntry, OpKey, space_keys
from nas.latency.table import LatencyTable, Provenance
from nas.latency.timing import (
    CONDITIONS,
    MAX_BUSY_CPUS,
    device_name,
    make_images,
    make_network,
    measure_busy_cpus,
    time_parts_ms,
    timing_conditions,
    timing_device,
)
from nas.latency.widths import initial_widths, next_widths
from nas.ops import CANDIDATE_OPS
from nas.space import LayerSpec, Space

MEASURED_SHARE = 0.045
"""Share of all widths that are measured at most, unless the initial ones are more already."""

PRECISION = 0.02
"""A point has repeats enough once the standard error of its median is below this share of it."""

MAX_REPEATS = 160
"""Timings of a point at most, however noisy it is."""

_VISIT_S = 0.2
_VISIT_RUNS = (8, 40)
_NUM_WARMUP_RUNS = 2

logger = logging.getLogger(__name__)


class Point(NamedTuple):
    """An operator at a width: measured once, however many layers of the space share it."""

    key: OpKey
    mid_channels: int


Timings = dict[Point | None, Timing]
Shape = tuple[int, int, int, int, str]


def measure_table(
    space: Space,
    *,
    device: str | torch.device = "cpu",
    num_threads: int = 1,
    batch_size: int | None = None,
    num_classes: int = 1000,
    max_duration_s: float = 900.0,
    seed: int = 0,
    report: Callable[[str], None] = lambda message: None,
) -> LatencyTable:
    """Measures the lookup table of a space on this machine; warns when the machine is busy.

    Args:
        device: `cpu`, `cuda` or `cuda:N`.
        num_threads: threads on the CPU.
        batch_size: images at a time; None for 1 on the CPU, 32 on CUDA.
        num_classes: outputs of the classifier, which is part of the base.
        max_duration_s: no more repeats are made, and no more widths measured, after that time.
        seed: of the composition of the measurement networks.
        report: receives a line for people now and then.

    Raises:
        UserError: there is no such device.
    """
    device = timing_device(device)
    batch_size = batch_size or (32 if device.type == "cuda" else 1)
    num_busy_cpus = measure_busy_cpus()
    if num_busy_cpus > MAX_BUSY_CPUS:
        logger.warning(
            "measuring latency on a busy machine (others use %.1f CPUs): expect wrong numbers", num_busy_cpus
        )
    start_s = time.monotonic()
    campaign = _Campaign(space, device, batch_size, num_classes, start_s + max_duration_s, seed)
    with timing_conditions(num_threads):
        _measure_points(campaign, report)
    timings = campaign.timings()
    base = timings.pop(None)
    points = timings.values()
    return LatencyTable(
        space=space.name,
        base_ms=base.median_ms,
        base_iqr_ms=base.iqr_ms,
        provenance=Provenance(
            source="measured",
            device_type=device.type,
            device_name=device_name(device),
            num_threads=num_threads,
            batch_size=batch_size,
            num_classes=num_classes,
            torch_version=str(torch.__version__),
            conditions=CONDITIONS,
            measured_on=datetime.now(UTC).isoformat(timespec="seconds"),
            duration_s=round(time.monotonic() - start_s, 1),
            num_repeats=int(np.median([point.num_repeats for point in points])),
            spread_percent=float(np.median([100 * point.iqr_ms / point.median_ms for point in points])),
            num_busy_cpus=round(num_busy_cpus, 2),
        ),
        entries=tuple(_entry(key, curve) for key, curve in _curves(timings).items()),
    )


def _measure_points(campaign: "_Campaign", report: Callable[[str], None]) -> None:
    """Measures the initial widths, then widths where it is least certain, then all until precise."""
    intervals = space_keys(campaign.space)
    num_widths = sum(high - low + 1 for low, high in intervals.values())
    points = [Point(key, width) for key, interval in intervals.items() for width in initial_widths(*interval)]
    max_points = max(int(MEASURED_SHARE * num_widths), len(points))
    num_known = 0
    while len(points) > num_known and not (num_known and campaign.is_over):
        report(f"measuring {len(points) - num_known} points beside {num_known} of {num_widths}")
        campaign.visit(points[num_known:])
        num_known = len(points)
        # Doubling lets each choice see the last one's outcome, in few rounds.
        points += _uncertain_points(campaign.timings(), min(max_points, 2 * num_known) - num_known)
    while (imprecise := campaign.imprecise_points()) and not campaign.is_over:
        report(f"repeating {len(imprecise)} of {num_known} points")
        campaign.visit(imprecise)


def _uncertain_points(timings: Timings, number: int) -> list[Point]:
    """So many points, at most, where interpolation is least certain."""
    candidates = []
    for key, curve in _curves(timings).items():
        widths, medians_ms = np.array(sorted(curve)), np.array([curve[w].median_ms for w in sorted(curve)])
        candidates += [
            (uncertainty, Point(key, width)) for uncertainty, width in next_widths(widths, medians_ms)
        ]
    candidates.sort(key=lambda candidate: candidate[0], reverse=True)
    return [point for _, point in candidates[:number]]


def _curves(
    timings: Timings,
) -> dict[OpKey, dict[int, Timing]]:
    curves: dict[OpKey, dict[int, Timing]] = defaultdict(dict)
    for point, timing in timings.items():
        if point is not None:
            curves[point.key][point.mid_channels] = timing
    return curves


def _entry(key: OpKey, curve: dict[int, Timing]) -> LatencyEntry:
    widths = sorted(curve)
    medians_ms = [curve[width].median_ms for width in widths]
    # More channels are more work: where a wider point came out faster, noise or a lucky alignment
    # did it, and elasticity-scaling must not chase it.
    rising_ms = isotonic_regression(medians_ms).x
    return LatencyEntry(
        key=key,
        widths=tuple(widths),
        latency_ms=tuple(map(float, rising_ms)),
        median_ms=tuple(medians_ms),
        iqr_ms=tuple(curve[width].iqr_ms for width in widths),
        num_repeats=tuple(curve[width].num_repeats for width in widths),
    )


class _Campaign:
    """The timings made so far, and how to make more.

    Samples of all runs lie in parallel lists: which point (an index; 0 is the base), which run, what time.
    """

    def __init__(
        self,
        space: Space,
        device: torch.device,
        batch_size: int,
        num_classes: int,
        end_s: float,
        seed: int,
    ) -> None:
        self.space = space
        self._device = device
        self._num_classes = num_classes
        self._end_s = end_s
        self._rng = np.random.default_rng(seed)
        self._images_BCHW = make_images(space.resolution, batch_size, device)
        self._index_of: dict[Point | None, int] = {None: 0}
        self._points: list[int] = []
        self._runs: list[int] = []
        self._times_ms: list[float] = []
        self._num_runs = 0

    @property
    def is_over(self) -> bool:
        """Whether the time for measuring is used up."""
        return time.monotonic() > self._end_s

    def visit(self, points: Sequence[Point]) -> None:
        """Times every point in a network or more; what is known already fills layers that are left."""
        known = [point for point in self._index_of if point is not None]
        for network_points in compose_networks(self.space, points, known, self._rng):
            if all(point in self._index_of for point in network_points) and self.is_over:
                continue
            self._time(network_points)

    def _time(self, points: Sequence[Point]) -> None:
        """Runs one network for a while and keeps the times of its parts."""
        network = make_network(_architecture(self.space, points), self._num_classes, self._device)
        indices = [self._index_of.setdefault(point, len(self._index_of)) for point in (*points, None)]
        for _ in range(_NUM_WARMUP_RUNS):
            warmup_ms = time_parts_ms(network, self._images_BCHW).sum()
        for _ in range(int(np.clip(_VISIT_S * 1e3 / warmup_ms, *_VISIT_RUNS))):
            self._times_ms += time_parts_ms(network, self._images_BCHW).tolist()
            self._points += indices
            self._runs += [self._num_runs] * len(indices)
            self._num_runs += 1

    def timings(self) -> dict[Point | None, Timing]:
        """What is known of each point, and under None of the base."""
        summary = summarize_timings(np.array(self._times_ms), np.array(self._points), np.array(self._runs))
        return dict(zip(self._index_of, summary, strict=True))

    def imprecise_points(self) -> list[Point]:
        """Points whose median is not precise yet."""
        return [
            point
            for point, timing in self.timings().items()
            if point is not None and timing.relative_error > PRECISION and timing.num_repeats < MAX_REPEATS
        ]


def compose_networks(
    space: Space, points: Sequence[Point], fillers: Sequence[Point], rng: np.random.Generator
) -> Iterator[tuple[Point, ...]]:
    """Networks at full depth, one point a layer, that have every point at least once.

    Args:
        fillers: points for the layers that are left when those of a shape are used up; if there
            are none of a shape, its points come again.
    """
    queues, fillers_of = _by_shape(points, rng), _by_shape(fillers, rng)
    while any(queues.values()):
        network = []
        for layer in space.layers:
            shape = _shape(OpKey.of(layer, CANDIDATE_OPS[0]))
            if queues.get(shape):
                network.append(queues[shape].pop())
                fillers_of.setdefault(shape, []).append(network[-1])
            else:
                network.append(fillers_of[shape][rng.integers(len(fillers_of[shape]))])
        yield tuple(network)


def _by_shape(points: Sequence[Point], rng: np.random.Generator) -> dict[Shape, list[Point]]:
    """The points of layers of equal shape, in random order."""
    groups: dict[Shape, list[Point]] = defaultdict(list)
    for index in rng.permutation(len(points)):
        groups[_shape(points[index].key)].append(points[index])
    return dict(groups)


def _shape(key: OpKey) -> Shape:
    return key.resolution, key.in_channels, key.out_channels, key.stride, key.activation


def _architecture(space: Space, points: Sequence[Point]) -> Architecture:
    stages: list[list[LayerChoice]] = [[] for _ in space.stages]
    for layer, point in zip(space.layers, points, strict=True):
        stages[layer.stage].append(_choice(layer, point))
    return Architecture(space=space.name, stages=tuple(tuple(choices) for choices in stages))


def _choice(layer: LayerSpec, point: Point) -> LayerChoice:
    for op in CANDIDATE_OPS:
        low, high = op.width_interval(layer.in_channels)
        if OpKey.of(layer, op) == point.key and low <= point.mid_channels <= high:
            return LayerChoice(op=op.name, mid_channels=point.mid_channels)
    raise AssertionError(f"no candidate operator of the space is {point}")
