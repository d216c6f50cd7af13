"""Timing of networks and their parts, on the CPU and on CUDA.

Networks run as in a plain PyTorch deployment: evaluation mode, inference mode, float32, channels last,
batch norm not folded. Lookup tables and whole networks are timed in the same way.
"""

import itertools
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nas.foundation.device import float32_precision, keep_freed_memory
from nas.space.architecture import Architecture
from nas.space.derived_network import DerivedNetwork

Network = TypeVar("Network", bound=nn.Module)

_GPU_REPEATS = 5
"""Runs of a part of a network between two marks on a GPU: small layers take little longer than the marks."""


def count_repeats(device: torch.device) -> int:
    """Runs between two marks, see `time_parts_ms`."""
    return _GPU_REPEATS if device.type == "cuda" else 1


def describe_conditions(device: torch.device) -> str:
    """Conditions of the timing, for the provenance of a table."""
    repeats = f", each part {_GPU_REPEATS} times in a row" if device.type == "cuda" else ""
    return (
        f"evaluation mode, {float32_precision(device)}, channels last, batch norm not folded, "
        f"freed memory kept by the allocator{repeats}"
    )


@contextmanager
def timing_conditions(num_threads: int) -> Iterator[None]:
    """Sets up timing within the block: inference mode, the number of CPU threads, a steady allocator."""
    keep_freed_memory()
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(before)


def make_network(architecture: Architecture, num_classes: int, device: torch.device) -> DerivedNetwork:
    """A derived network that is ready to be timed, see `prepare_network`.

    Its weights are constants that preserve magnitudes, because drawing random ones would take longer than
    the timing.
    """
    with torch.device("meta"):
        network = DerivedNetwork(architecture, num_classes)
    network.to_empty(device=device)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        elif isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return prepare_network(network, device)


def prepare_network(network: Network, device: torch.device) -> Network:
    """Brings a network, in place, into the state in which all networks are timed."""
    return network.eval().to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def default_batch_size(device_type: str) -> int:
    """Images at a time, where nobody asks for another number."""
    return 32 if device_type == "cuda" else 1


def make_images(resolution: int, batch_size: int, device: torch.device) -> Tensor:
    """Images_BCHW for timing."""
    images_BCHW = torch.ones(batch_size, 3, resolution, resolution, device=device)
    return images_BCHW.contiguous(memory_format=torch.channels_last)


def time_network_ms(network: nn.Module, images_BCHW: Tensor) -> float:
    """Time of one run of a whole network, in ms."""
    return float(_time_in_turn_ms([network], images_BCHW)[0])


def time_parts_ms(network: DerivedNetwork, images_BCHW: Tensor) -> NDArray[np.float64]:
    """Times of the parts of one run, in ms: each searchable layer, then the base (everything else)."""
    start, *layers_ms, end = _time_in_turn_ms(
        [network.features, *network.blocks, network.classify], images_BCHW
    )
    return np.array([*layers_ms, start + end])


def _time_in_turn_ms(parts: Sequence[Callable[[Tensor], Tensor]], images_BCHW: Tensor) -> NDArray[np.float64]:
    """Time of each part of a run, in ms. On a GPU each part runs several times on the same input."""
    device = images_BCHW.device
    (mark, elapsed_ms), num_repeats = _clock(device), count_repeats(device)
    marks, features = [mark()], images_BCHW
    for part in parts:
        for _ in range(num_repeats):
            out = part(features)
        features = out
        marks.append(mark())
    return np.array(elapsed_ms(marks)) / num_repeats


def _clock(device: torch.device) -> tuple[Callable[[], Any], Callable[[list[Any]], list[float]]]:
    """A function that marks a moment, and one that returns the ms between consecutive marks."""
    if device.type != "cuda":
        return time.perf_counter_ns, lambda marks: [
            (end - start) / 1e6 for start, end in itertools.pairwise(marks)
        ]

    def mark() -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(device))
        return event

    def elapsed_ms(marks: list[torch.cuda.Event]) -> list[float]:
        # Events are on the GPU's own timeline. They can be read once the last one has passed.
        torch.cuda.synchronize(device)
        return [start.elapsed_time(end) for start, end in itertools.pairwise(marks)]

    return mark, elapsed_ms


def device_name(device: torch.device) -> str:
    """The name of the device as tables record it, for instance `Intel(R) Xeon(R) Processor`."""
    return str(torch.cuda.get_device_name(device)) if device.type == "cuda" else _cpu_name()


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
