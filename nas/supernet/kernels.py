"""What computes the mixed blocks of a search: plain torch, or compiled loops where they can run.

On a GPU, torch computes them in few kernels (`nas.supernet.grouped_block`), which are recorded and replayed
(`nas.supernet.graphed_block`). CPU and GPU, plain and compiled agree to rounding. The compiled loops (numba,
llvmlite, a library opened for its BLAS) are imported only where they are chosen.
"""

import warnings
from functools import cache, partial
from typing import Literal

import torch
from torch.utils.checkpoint import checkpoint

from nas.foundation.errors import RunWarning, UserError
from nas.supernet.graphed_block import GraphedBlock
from nas.supernet.grouped_block import grouped_block
from nas.supernet.mixed_block import BlockFunction, mixed_block

Kernels = Literal["torch", "recompute", "cuda_graphs", "compiled"]


def choose_kernels(
    wanted: Literal["auto"] | Kernels,
    device: torch.device,
    *,
    mixed_precision: bool,
    begun_with: str | None = None,
) -> Kernels:
    """Chooses the kernels of a search, and warns where they are not those one would expect.

    Args:
        wanted: `auto` is what the search began with or else, where they can run, `cuda_graphs` or `compiled`;
            else `torch`. `recompute` is `torch` in less memory.
        begun_with: the kernels of the epochs that are done, if any.

    Raises:
        UserError: `cuda_graphs` or `compiled` is wanted and cannot run.
    """
    problem = None
    chosen: Kernels = "torch"
    if wanted == "recompute" or (wanted == "auto" and begun_with == "recompute"):
        chosen = "recompute"
    elif wanted == "cuda_graphs" or (
        wanted == "auto" and device.type == "cuda" and begun_with in (None, "cuda_graphs")
    ):
        if device.type != "cuda":
            raise UserError(f"kernels: 'cuda_graphs' run on a GPU, and the device is {device.type}; use auto")
        chosen = "cuda_graphs"
    elif wanted == "compiled" or (wanted == "auto" and begun_with != "torch"):
        problem = _find_mismatch(device, mixed_precision) or find_failure()
        chosen = "torch" if problem else "compiled"
    if wanted == "compiled" and problem:
        raise UserError(f"kernels: 'compiled' cannot run here: {problem}, or kernels: auto")
    if begun_with not in (None, chosen):
        reason = f", which cannot run here ({problem})" if problem else f"; kernels is '{wanted}'"
        equal = "to the bit" if {begun_with, chosen} == {"torch", "recompute"} else "to rounding"
        _warn(f"the search began with {begun_with} kernels{reason}; continues with {chosen}, equal {equal}")
    elif problem and suits_compiled(device, mixed_precision=mixed_precision):
        _warn_once(f"compiled kernels cannot run here ({problem}); continues with torch, which takes longer")
    return chosen


def block_of(kernels: Kernels, device: torch.device) -> BlockFunction:
    """The implementation of mixed blocks; under `cuda_graphs` and `compiled`, of one layer."""
    if kernels == "compiled":
        from nas.supernet.compiled.compiled_block import CompiledBlock

        return CompiledBlock()
    if kernels == "cuda_graphs":
        return GraphedBlock(grouped_block)
    block = mixed_block if device.type == "cpu" else grouped_block
    if kernels == "recompute":
        # It keeps its input alone, and runs again in the backward pass; equal to the bit.
        return partial(checkpoint, block, use_reentrant=False, preserve_rng_state=False)
    return block


def suits_compiled(device: torch.device, *, mixed_precision: bool) -> bool:
    """Whether a search is of the kind that compiled kernels compute: in float32, on the CPU."""
    return _find_mismatch(device, mixed_precision) is None


def _find_mismatch(device: torch.device, mixed_precision: bool) -> str | None:
    if device.type != "cpu":
        return f"they run on the CPU, and the device is {device.type}; set device: cpu"
    return "they compute in float32; set mixed_precision: false" if mixed_precision else None


@cache
def find_failure() -> str | None:
    """Why compiled kernels fail in this process, with a remedy; None if they work. Compiles them."""
    try:
        from nas.supernet.compiled.trial_run import check_compiled_block

        check_compiled_block()
    except ImportError as error:
        return f"{error}; install tfnas[kernels]"
    # A folder that cannot be written, another BLAS, an unknown processor: whatever it is, torch can do it.
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}; set kernels: torch"
    return None


@cache
def _warn_once(message: str) -> None:
    """A process may run many searches."""
    _warn(message)


def _warn(message: str) -> None:
    warnings.warn(f"kernels: {message}", RunWarning, stacklevel=2)
