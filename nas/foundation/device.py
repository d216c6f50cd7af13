"""Where tensors are, and how exactly what is computed there repeats."""

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from nas.foundation.errors import UserError


def resolve_device(device: str | torch.device) -> torch.device:
    """The device of a config's `device`; `auto` is CUDA if it is there.

    GPUs count from 0 among those that `CUDA_VISIBLE_DEVICES` shows, `cuda` being the first of them.

    Raises:
        UserError: there is no such device here.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
    except RuntimeError:
        raise UserError(f"device: '{device}'; use auto, cpu, cuda or cuda:N") from None
    if found.type not in ("cpu", "cuda"):
        raise UserError(f"device: '{device}'; use auto, cpu, cuda or cuda:N")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device: '{device}'; {torch.cuda.device_count()} GPUs are visible here; use auto or cpu, "
            "or a machine that has it"
        )
    return found


@contextmanager
def determinism(enabled: bool) -> Iterator[None]:
    """Within it torch uses deterministic algorithms only, if enabled; afterwards what it used before.

    Raises:
        RuntimeError: within it, an operation has no deterministic algorithm on its device.
    """
    if not enabled:
        yield
        return
    # cuBLAS reads it once in a process, so there is no taking it back.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        cudnn.deterministic, cudnn.benchmark = before[1:]


def keep_freed_memory() -> None:
    """Tells glibc not to hand freed memory back to the system.

    It does so above a threshold that depends on what the process has freed before: page faults then
    cost a step of a search up to a tenth of its time, and add up to 70 % to a layer that is timed, or
    do not, by chance. Other C libraries lack the function.
    """
    trim_threshold, mmap_threshold = -1, -3
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if platform.system() == "Linux" else None
    if mallopt is not None:
        # Older versions take 32 MiB at most.
        if not mallopt(mmap_threshold, 2**30):
            mallopt(mmap_threshold, 2**25)
        mallopt(trim_threshold, 2**31 - 1)
