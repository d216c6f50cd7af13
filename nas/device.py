"""Where tensors are, and how exactly what is computed there repeats."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from nas.errors import UserError


def resolve_device(device: str) -> torch.device:
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
