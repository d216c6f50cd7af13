"""Output that all benchmarks share: a line about the machine, and a Markdown table."""

import os
import platform
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import torch

from nas.latency.measurement import device_name


def describe_machine() -> str:
    """Date, processor, cores, load and versions, in one line."""
    load, *_ = os.getloadavg()
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {device_name(torch.device('cpu'))}, "
        f"{os.cpu_count()} cores ({torch.backends.cpu.get_cpu_capability()}), load {load:.1f}, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Prints a Markdown table."""
    print()
    for row in (header, ["---"] * len(header), *rows):
        print("| " + " | ".join(str(cell) for cell in row) + " |", flush=True)
