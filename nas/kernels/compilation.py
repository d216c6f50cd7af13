"""How numerical loops are compiled."""

import numba
import torch
from torch import Tensor

compile_loop = numba.njit(fastmath={"reassoc", "contract"}, error_model="numpy", nogil=True, cache=True)
"""Sums may be reordered and contracted, but NaN and infinity come through."""


def runs_compiled(tensor: Tensor) -> bool:
    """Whether a tensor is of the kind that the compiled loops take: float32 on the CPU."""
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32
