"""Measuring a lookup table in minutes: operators timed in place, few widths, many repeats.

An operator alone in a loop finds its weights and activations in the cache, an operator in a
network does not. So operators are timed where they run: measurement networks of the space are
composed of the points that are to be measured, run end to end, and each block is timed
within them. What a table sums up is then what a network spends, and the drift of a noisy machine
hits all points alike.

Shapes: R runs of a measurement network, P timed parts of it (the searchable layers, then the base).
"""

import itertools
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nas.architecture import Architecture, LayerChoice
from nas.latency.table import LatencyEntry, LatencyTable, OpKey, Provenance, space_keys
from nas.network import DerivedNetwork
from nas.ops import CANDIDATE_OPS
from nas.space import LayerSpec, Space


class Point(NamedTuple):
    """An operator at a width: what is measured once, however many layers share it."""

    key: OpKey
    mid_channels: int


def measure_table(
    space: Space,
    *,
    device: str | torch.device = "cpu",
    num_threads: int = 1,
    batch_size: int | None = None,
    num_classes: int = 1000,
    num_repeats: int = 30,
    seed: int = 0,
    report: Callable[[str], None] = lambda message: None,
) -> LatencyTable:
    """Measures the lookup table of a space on this machine.

    Args:
        device: `cpu`, `cuda` or `cuda:N`.
        num_threads: threads on the CPU.
        batch_size: images at a time; None for 1 on the CPU, 32 on CUDA.
        num_classes: outputs of the classifier, which is part of the base.
        num_repeats: timings of each point.
        seed: of the composition of the measurement networks.
        report: receives a line for people now and then.
    """
    device = torch.device(device)
    batch_size = batch_size or (32 if device.type == "cuda" else 1)
    points = _initial_points(space)
    rng = np.random.default_rng(seed)
    samples_ms: dict[Point | None, list[float]] = {None: []} | {point: [] for point in points}
    with torch_threads(num_threads), torch.inference_mode():
        images_BCHW = make_images(space, batch_size, device)
        for _ in range(max(num_repeats // 10, 1)):
            for architecture in _measurement_networks(space, points, rng):
                network = make_network(architecture, num_classes, device)
                for times_ms in [time_parts_ms(network, images_BCHW) for _ in range(12)][2:]:
                    *layers_ms, base_ms = times_ms
                    samples_ms[None].append(base_ms)
                    for (layer, op, mid_channels), layer_ms in zip(
                        architecture.layers, layers_ms, strict=True
                    ):
                        samples_ms[Point(OpKey.of(layer, op), mid_channels)].append(layer_ms)
    return LatencyTable(
        space=space.name,
        base_ms=float(np.median(samples_ms[None])),
        provenance=Provenance(
            source="measured",
            device_type=device.type,
            device_name=device_name(device),
            num_threads=num_threads,
            batch_size=batch_size,
            torch_version=str(torch.__version__),
            measured_on=datetime.now(UTC).isoformat(timespec="seconds"),
        ),
        entries=tuple(_entry(key, points, samples_ms) for key in space_keys(space)),
    )


def _entry(key: OpKey, points: list[Point], samples_ms: dict[Point | None, list[float]]) -> LatencyEntry:
    widths = sorted(point.mid_channels for point in points if point.key == key)
    samples = [samples_ms[Point(key, width)] for width in widths]
    return LatencyEntry(
        key=key,
        widths=tuple(widths),
        latency_ms=tuple(float(np.median(s)) for s in samples),
        iqr_ms=tuple(float(np.subtract(*np.percentile(s, [75, 25]))) for s in samples),
    )


def _initial_points(space: Space) -> list[Point]:
    return [
        Point(key, int(width))
        for key, (low, high) in space_keys(space).items()
        for width in np.unique(np.linspace(low, high, 5).round())
    ]


def _measurement_networks(
    space: Space, points: list[Point], rng: np.random.Generator
) -> Iterator[Architecture]:
    """Networks at full depth that have every point in at least one layer, in random order."""
    queues: dict[tuple[int, int, int, int], list[Point]] = {}
    for index in rng.permutation(len(points)):
        queues.setdefault(_shape(points[index].key), []).append(points[index])
    positions = dict.fromkeys(queues, 0)
    while any(positions[shape] < len(queue) for shape, queue in queues.items()):
        stages: list[list[LayerChoice]] = [[] for _ in space.stages]
        for layer in space.layers:
            shape = _shape(OpKey.of(layer, CANDIDATE_OPS[0]))
            point = queues[shape][positions[shape] % len(queues[shape])]
            positions[shape] += 1
            stages[layer.stage].append(_choice(layer, point))
        yield Architecture(space=space.name, stages=tuple(tuple(choices) for choices in stages))


def _shape(key: OpKey) -> tuple[int, int, int, int]:
    """What layers that can hold the same points have in common."""
    return key.resolution, key.in_channels, key.out_channels, key.stride


def _choice(layer: LayerSpec, point: Point) -> LayerChoice:
    for op in CANDIDATE_OPS:
        low, high = op.width_interval(layer.in_channels)
        if OpKey.of(layer, op) == point.key and low <= point.mid_channels <= high:
            return LayerChoice(op=op.name, mid_channels=point.mid_channels)
    raise AssertionError(f"no candidate has {point}")


def make_network(architecture: Architecture, num_classes: int, device: torch.device) -> DerivedNetwork:
    """A derived network to be timed: evaluation mode, channels last, weights that keep magnitudes.

    Random initialisation would take longer than the timing; constant weights take the same time to run.
    """
    with torch.device("meta"):
        network = DerivedNetwork(architecture, num_classes)
    network = network.to_empty(device=device).eval().to(memory_format=torch.channels_last)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        elif isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network


def make_images(space: Space, batch_size: int, device: torch.device) -> Tensor:
    """Images_BCHW, channels last, to time networks of the space with."""
    shape = (batch_size, 3, space.resolution, space.resolution)
    return torch.ones(shape, device=device).to(memory_format=torch.channels_last)


def time_parts_ms(network: DerivedNetwork, images_BCHW: Tensor) -> NDArray[np.float64]:
    """Times_P of one run: each searchable layer, and last the base (all else), in ms."""
    mark, elapsed_ms = _clock(images_BCHW.device)
    marks = [mark()]
    features_BCHW = network.stem_block(network.stem(images_BCHW))
    for block in network.blocks:
        marks.append(mark())
        features_BCHW = block(features_BCHW)
    marks.append(mark())
    network.classifier(network.dropout(network.head(features_BCHW).mean((2, 3))))
    marks.append(mark())
    times_ms = elapsed_ms(marks)
    return np.array([*times_ms[1:-1], times_ms[0] + times_ms[-1]])


def _clock(device: torch.device) -> tuple[Callable[[], Any], Callable[[list[Any]], list[float]]]:
    """A function that marks a moment, and one that tells the ms between neighbouring marks."""
    if device.type != "cuda":
        return time.perf_counter_ns, lambda marks: [
            (end - start) / 1e6 for start, end in itertools.pairwise(marks)
        ]

    def mark() -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(device))
        return event

    def elapsed_ms(marks: list[torch.cuda.Event]) -> list[float]:
        torch.cuda.synchronize(device)
        return [start.elapsed_time(end) for start, end in itertools.pairwise(marks)]

    return mark, elapsed_ms


@contextmanager
def torch_threads(num_threads: int) -> Iterator[None]:
    """Within it PyTorch computes on that many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def device_name(device: torch.device) -> str:
    """The device's name as a table records it, for instance `Intel(R) Xeon(R) Processor`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return cpu_name()


def cpu_name() -> str:
    """The processor's model name, as the operating system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
