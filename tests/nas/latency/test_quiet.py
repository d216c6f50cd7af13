"""What counts as a busy machine, and how timings wait for a quiet one."""

import os
import subprocess
from collections import namedtuple
from collections.abc import Callable, Iterator

import psutil
import pytest
import torch

from nas.foundation.errors import UserError
from nas.latency import quiet
from nas.latency.quiet import LoadMeter, OtherLoad, quiet_machine

QUIET, BUSY = OtherLoad(0.1, 2), OtherLoad(0.9, 2)


@pytest.mark.parametrize(
    ("num_busy_cpus", "num_cpus", "is_busy"),
    [
        *[(0.25, 1, False), (0.26, 1, True), (0.25, 2, False), (0.26, 2, True)],
        *[(0.4, 8, False), (0.41, 8, True), (3.2, 64, False), (3.3, 64, True)],
    ],
)
def test_busy_is_more_than_a_quarter_of_a_cpu_and_more_than_a_twentieth_of_all(
    num_busy_cpus: float, num_cpus: int, is_busy: bool
) -> None:
    assert OtherLoad(num_busy_cpus, num_cpus).is_busy is is_busy


# Time of guests is part of user time, and must not count twice.
Times = namedtuple("Times", ["user", "system", "idle", "iowait", "steal", "guest"])
OwnTimes = namedtuple("OwnTimes", ["user", "system", "children_user"])


def test_others_use_what_was_used_beside_this_process_of_the_cpus_that_it_may_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Within 10 s: on CPU 0, 4 s in all (1 s stolen), on CPU 2, 3 s; this process used 5 s of them."""
    nothing = Times(100.0, 10.0, 500.0, 7.0, 0.0, 50.0)
    used = [
        Times(102.0, 11.0, 505.0, 8.0, 1.0, 51.0),
        Times(110.0, 10.0, 500.0, 7.0, 0.0, 50.0),
        Times(103.0, 10.0, 507.0, 7.0, 0.0, 50.0),
    ]
    readings = iter([[nothing] * 3, used])
    own = iter([OwnTimes(1.0, 1.0, 0.0), OwnTimes(5.0, 2.0, 9.0)])
    now_s = iter([1000.0, 1010.0])
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: next(readings))
    monkeypatch.setattr(psutil.Process, "cpu_times", lambda process: next(own))
    monkeypatch.setattr(quiet.time, "perf_counter", lambda: next(now_s))
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 2})
    meter = LoadMeter()
    assert meter.load() == (pytest.approx((4 + 3 - 5) / 10), 2)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets what other processes use, half a second at a time."""

    def use(*given: OtherLoad) -> None:
        remaining = iter(given)
        monkeypatch.setattr(quiet, "measure_load", lambda: next(remaining))

    return use


@pytest.fixture
def meter(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[OtherLoad]]:
    """What the meter of a block reads."""
    read = [QUIET]
    monkeypatch.setattr(LoadMeter, "load", lambda meter: read[0])
    return read


def test_a_burst_is_waited_for_and_said_once(loads: Callable[..., None], meter: list[OtherLoad]) -> None:
    loads(BUSY, BUSY, QUIET)
    said: list[str] = []
    with quiet_machine(report=said.append) as measured:
        assert measured.load() == QUIET
    assert said == ["waiting up to 60 s for a quiet machine: other processes use 0.9 CPUs"]


def test_a_quiet_machine_is_used_without_a_word(loads: Callable[..., None], meter: list[OtherLoad]) -> None:
    loads(QUIET)
    said: list[str] = []
    with quiet_machine(report=said.append):
        pass
    assert said == []


def test_a_machine_that_stays_busy_is_refused_with_the_way_to_insist(
    loads: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quiet, "PATIENCE_S", 0.0)
    loads(BUSY)
    with pytest.raises(UserError, match=r"0\.9 CPUs.*--even-if-busy.*even_if_busy=True"), quiet_machine():
        pytest.fail("timed on a busy machine")


def test_a_machine_that_becomes_busy_spoils_what_was_timed(
    loads: Callable[..., None], meter: list[OtherLoad]
) -> None:
    loads(QUIET)
    meter[0] = BUSY
    timed = []
    with pytest.raises(UserError, match="the machine is busy"), quiet_machine():
        timed.append("once")
    assert timed == ["once"]


def test_who_insists_neither_waits_nor_is_refused(loads: Callable[..., None], meter: list[OtherLoad]) -> None:
    loads()
    meter[0] = BUSY
    with quiet_machine(even_if_busy=True) as measured:
        pass
    assert measured.load() == BUSY


@pytest.fixture
def gpu_use(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets what nvidia-smi prints, one call after the other; None where there is none."""

    def use(*printed: str | None) -> None:
        remaining = iter(printed)

        def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
            assert "--id=GPU-1234" in command
            text = next(remaining)
            if text is None:
                raise FileNotFoundError(command[0])
            return subprocess.CompletedProcess(command, 0, text, "")

        monkeypatch.setattr(quiet.subprocess, "run", run)

    properties = namedtuple("properties", "uuid")("1234")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(quiet, "_GPU_INTERVAL_S", 0.0)
    return use


GPU = torch.device("cuda", 0)


def test_a_busy_gpu_is_waited_for(
    loads: Callable[..., None], meter: list[OtherLoad], gpu_use: Callable[..., None]
) -> None:
    loads(QUIET)
    gpu_use("97\n", "6\n", "5\n")
    said: list[str] = []
    with quiet_machine(GPU, report=said.append):
        pass
    assert len(said) == 1


def test_a_gpu_that_stays_busy_is_refused_and_one_that_nobody_knows_of_is_told(
    loads: Callable[..., None],
    meter: list[OtherLoad],
    gpu_use: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quiet, "PATIENCE_S", 0.0)
    loads(QUIET, QUIET, QUIET)
    gpu_use("97\n", None, "[N/A]\n")
    with pytest.raises(UserError, match=r"the GPU is busy.*97 %.*--even-if-busy"), quiet_machine(GPU):
        pytest.fail("timed on a busy GPU")
    for _ in range(2):
        said: list[str] = []
        with quiet_machine(GPU, report=said.append):
            pass
        assert len(said) == 1
    with quiet_machine(GPU, even_if_busy=True):
        pass
