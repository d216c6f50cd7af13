"""Quiet: what other processes use of the CPUs, and waiting until they leave them.

On a busy machine everything takes longer, and nobody knows by how much. So timings wait for a quiet one.
"""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import psutil

from nas.foundation.errors import UserError

if TYPE_CHECKING:
    import torch

PATIENCE_S = 60.0
"""How long timings wait for a quiet machine: long enough for whatever just started or ended beside them."""

_BUSY_CPUS = 0.25
_BUSY_SHARE = 0.05
_INTERVAL_S = 0.5
_BUSY_GPU_PERCENT = 5
_GPU_INTERVAL_S = 1.5
_GPU_PATIENCE_S = 20.0


class OtherLoad(NamedTuple):
    """What other processes used of the CPUs that this process may run on.

    Attributes:
        num_busy_cpus: CPUs that they kept busy, on average, to two decimals.
        num_cpus: CPUs that there are.
    """

    num_busy_cpus: float
    num_cpus: int

    @property
    def is_busy(self) -> bool:
        """Whether timings would be wrong, see `counts_as_busy`."""
        return counts_as_busy(self.num_busy_cpus, self.num_cpus)

    def __str__(self) -> str:
        return f"other processes use {self.num_busy_cpus:.1f} CPUs"


def counts_as_busy(num_busy_cpus: float, num_cpus: int) -> bool:
    """Whether other processes use more than a quarter of a CPU, and more than a twentieth of all CPUs.

    Among many CPUs, what is timed finds some to itself.
    """
    return num_busy_cpus > max(_BUSY_CPUS, _BUSY_SHARE * num_cpus)


class LoadMeter:
    """Measures what other processes, and other guests of the host, use of the CPUs, from its creation on."""

    def __init__(self) -> None:
        self._begin = _read_times()
        self._end: _Times | None = None

    def stop(self) -> None:
        """Ends the measurement."""
        self._end = _read_times()

    def load(self) -> OtherLoad:
        """The average until the end, or until now."""
        begin, end = self._begin, self._end or _read_times()
        used_s = (end.all_s - begin.all_s) - (end.own_s - begin.own_s)
        return OtherLoad(round(max(used_s / (end.now_s - begin.now_s), 0.0), 2), end.num_cpus)


class _Times(NamedTuple):
    """The time, and the CPU time of all processes and of this one, in seconds."""

    now_s: float
    all_s: float
    own_s: float
    num_cpus: int


def _read_times() -> _Times:
    own, times = psutil.Process().cpu_times(), psutil.cpu_times(percpu=True)
    if hasattr(os, "sched_getaffinity"):
        usable = os.sched_getaffinity(0)
        times = [each for cpu, each in enumerate(times) if cpu in usable]
    # User time includes guest time. Stolen time is another guest's use of this CPU.
    idle = ("idle", "iowait", "guest", "guest_nice")
    all_s = sum(sum(each) - sum(getattr(each, name, 0.0) for name in idle) for each in times)
    return _Times(time.perf_counter(), all_s, own.user + own.system, len(times))


def measure_load() -> OtherLoad:
    """What other processes use now, over half a second."""
    meter = LoadMeter()
    time.sleep(_INTERVAL_S)
    return meter.load()


@contextmanager
def quiet_machine(
    device: "torch.device | None" = None,
    *,
    even_if_busy: bool = False,
    report: Callable[[str], None] = lambda message: None,
) -> Iterator[LoadMeter]:
    """Waits for a quiet machine, for what is timed within the block.

    Args:
        device: a GPU must be quiet as well, before the block.
        even_if_busy: whether to go ahead at once, and however busy the machine becomes.
        report: receives a line if there is something to wait for.

    Yields:
        A meter of the load within the block.

    Raises:
        UserError: the machine is still busy after `PATIENCE_S`, or was busy within the block, on average.
    """
    if not even_if_busy:
        _check(_wait(report))
        if device is not None and device.type == "cuda":
            _wait_for_gpu(device, report)
    meter = LoadMeter()
    yield meter
    meter.stop()
    if not even_if_busy:
        _check(meter.load())


def _wait(report: Callable[[str], None]) -> OtherLoad:
    """The first load that is quiet, or the last one."""
    end_s = time.monotonic() + PATIENCE_S
    load = measure_load()
    if load.is_busy:
        report(f"waiting up to {PATIENCE_S:.0f} s for a quiet machine: {load}")
    while load.is_busy and time.monotonic() < end_s:
        load = measure_load()
    return load


def _check(load: OtherLoad) -> None:
    if load.is_busy:
        raise UserError(
            f"the machine is busy: {load}, so timings would be wrong; wait until these are done, or insist "
            "with --even-if-busy (in a notebook: even_if_busy=True)"
        )


def _wait_for_gpu(device: "torch.device", report: Callable[[str], None]) -> None:
    """Waits until nobody uses a GPU that this process does not use either."""
    end_s = time.monotonic() + PATIENCE_S
    is_said = False
    while (used_percent := gpu_use_percent(device)) is not None and used_percent > _BUSY_GPU_PERCENT:
        load = f"other processes use {used_percent} % of its time"
        if time.monotonic() >= end_s:
            raise UserError(
                f"the GPU is busy: {load}, so timings would be wrong; wait until these are done, or insist "
                "with --even-if-busy (in a notebook: even_if_busy=True)"
            )
        if not is_said:
            report(f"waiting up to {PATIENCE_S:.0f} s for a quiet GPU: {load}")
        is_said = True
    if used_percent is None:
        report("nvidia-smi does not tell whether other processes use the GPU; timings may be wrong")


def gpu_use_percent(device: "torch.device") -> int | None:
    """The share of the last second in which a GPU had work, in percent; None if nvidia-smi cannot tell."""
    # Imported here: tables are read where torch is not needed.
    import torch

    torch.cuda.synchronize(device)
    time.sleep(_GPU_INTERVAL_S)
    query = ["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    command = ["nvidia-smi", f"--id=GPU-{torch.cuda.get_device_properties(device).uuid}", *query]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=_GPU_PATIENCE_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return int(told.stdout) if told.stdout.strip().isdecimal() else None
