"""Devices: finding them, deterministic algorithms, and memory allocation."""

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from nas.foundation.errors import UserError


def resolve_device(device: str | torch.device) -> torch.device:
    """The device that a config's `device` names; `auto` is CUDA if available.

    GPUs are numbered from 0 among those that `CUDA_VISIBLE_DEVICES` shows; `cuda` is the first of them.

    Raises:
        UserError: this machine has no such device.
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


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """Copies a tensor from the host to a device. The host does not wait for a GPU, which has more to do."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@contextmanager
def determinism(enabled: bool) -> Iterator[None]:
    """If enabled, restricts torch to deterministic algorithms in the block, then restores its settings.

    Raises:
        RuntimeError: an operation in the block has no deterministic algorithm on its device.
    """
    if not enabled:
        yield
        return
    # cuBLAS reads this once per process, so it cannot be reset.
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
    """Makes glibc keep freed memory instead of returning it to the system.

    By default glibc returns memory above a threshold that depends on what the process freed before.
    The page faults then take up to a tenth of a search step's time, and add up to 70 % to the time of a
    layer, or nothing, by chance. Other C libraries lack this setting.
    """
    trim_threshold, mmap_threshold = -1, -3
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if platform.system() == "Linux" else None
    if mallopt is not None:
        # Older versions accept 32 MiB at most.
        if not mallopt(mmap_threshold, 2**30):
            mallopt(mmap_threshold, 2**25)
        mallopt(trim_threshold, 2**31 - 1)
