"""Devices: finding them, deterministic algorithms, memory, and what torch need not import."""

import ctypes
import inspect
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from nas.foundation.errors import UserError

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
_WORKSPACE_VALUES = (":4096:8", ":16:8")
"""With either, products on a GPU repeat exactly; the first is what torch takes by itself, in size."""


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
    if found.type == "cuda" and not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        # cuBLAS reads it once per process, and a later search of this process may need it.
        os.environ.setdefault(_WORKSPACE, _WORKSPACE_VALUES[0])
    return found


def check_repeatable(device: torch.device) -> None:
    """Checks that matrix products of this process repeat exactly on a GPU.

    Raises:
        UserError: cuBLAS may have started without the setting that it needs for that.
    """
    if device.type == "cuda" and os.environ.get(_WORKSPACE) not in _WORKSPACE_VALUES:
        raise UserError(
            f"deterministic: {_WORKSPACE} is '{os.environ.get(_WORKSPACE, '')}'; set it to "
            f"{_WORKSPACE_VALUES[0]} before the process first uses the GPU, or set deterministic: false"
        )


@contextmanager
def gpu_settings(device: torch.device, *, tunes_convolutions: bool = False) -> Iterator[None]:
    """Sets what torch leaves to the program on a GPU, within the block; nothing on the CPU.

    Products of float32 matrices become as exact as convolutions, which torch computes in TF32 unless one
    switches that off (`torch.backends.cudnn.conv.fp32_precision`): 1x1 convolutions are products here.

    Args:
        tunes_convolutions: whether cuDNN tries all algorithms for a shape when it first sees it.
    """
    if device.type != "cuda":
        yield
        return
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.fp32_precision, convolutions.benchmark
    products.fp32_precision = convolutions.conv.fp32_precision  # type: ignore[attr-defined]
    convolutions.benchmark = tunes_convolutions and not convolutions.deterministic
    try:
        yield
    finally:
        products.fp32_precision, convolutions.benchmark = before


def float32_precision(device: torch.device) -> str:
    """How exactly a device computes in float32 as torch is set now, for the provenance of a timing."""
    if device.type != "cuda":
        return "float32"
    convolutions = torch.backends.cudnn.conv.fp32_precision  # type: ignore[attr-defined]
    products = torch.backends.cuda.matmul.fp32_precision
    return f"float32 (convolutions {_name(convolutions)}, products {_name(products)})"


def _name(precision: str) -> str:
    """Without a setting of its own, and without one for all, torch computes in full."""
    return {"none": "ieee"}.get(precision, precision)


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
    # Not reset, since cuBLAS reads it once per process; see `check_repeatable`.
    os.environ.setdefault(_WORKSPACE, _WORKSPACE_VALUES[0])
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        cudnn.deterministic, cudnn.benchmark = before[1:]


def spare_compiler_import() -> None:
    """Keeps torch from importing its compiler when an optimizer is made: two seconds of CPU, and 100 MB.

    Methods of optimizers are wrapped so that the compiler leaves them alone, which imports it. A wrapper that
    finds `__dynamo_disable` calls that instead. See also `take_step`.
    """
    for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
        method = getattr(getattr(torch.optim.Optimizer, name), "__wrapped__", None)
        if method is not None and not hasattr(method, "__dynamo_disable"):
            method.__dynamo_disable = method


def take_step(optimizer: torch.optim.Optimizer) -> None:
    """A step without hooks and profiling, whose wrappers import torch's compiler."""
    with torch.no_grad():
        inspect.unwrap(type(optimizer).step)(optimizer)


class _Hand(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, gradient: Tensor) -> Tensor:
        ctx.gradient = gradient
        return tensor.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor, None]:
        return ctx.gradient, None


def backward_from(tensor: Tensor, gradient: Tensor) -> None:
    """`tensor.backward(gradient)`, which would import a library for symbols: half a second of CPU."""
    _Hand.apply(tensor, gradient).backward()


def keep_freed_memory() -> None:
    """Makes glibc keep freed memory instead of returning it to the system.

    By default glibc returns memory above a threshold that depends on what the process freed before.
    The page faults then take up to a tenth of a search step's time, and add up to 70 % to the time of a
    layer, or nothing, by chance. By default glibc also keeps small pieces apart, and merges all of them each
    time that a large one is freed. Other C libraries lack these settings.
    """
    trim_threshold, mmap_threshold, largest_apart = -1, -3, 1
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if platform.system() == "Linux" else None
    if mallopt is not None:
        # Older versions accept 32 MiB at most.
        if not mallopt(mmap_threshold, 2**30):
            mallopt(mmap_threshold, 2**25)
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(largest_apart, 0)
