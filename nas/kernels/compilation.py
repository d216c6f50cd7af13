"""How loops are compiled, and what they share.

Shapes: N pixels of the batch, C channels.
"""

import ctypes
import hashlib
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import binding
from numba import types
from torch import Tensor

BN_EPS = 1e-5


def _keep_compiled_by_sources() -> None:
    """Keeps compiled loops in a folder of their own for each state of this package.

    numba looks at the file of a function alone, and would go on with what the function had called when
    another file was different.
    """
    sources = sorted(Path(__file__).parent.glob("*.py"))
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    base = numba.config.CACHE_DIR or Path(__file__).parent / "__pycache__"
    numba.config.CACHE_DIR = str(Path(base) / f"loops-{digest[:16]}")


_keep_compiled_by_sources()

compile_loop = numba.njit(fastmath={"reassoc", "contract"}, error_model="numpy", nogil=True, cache=True)
"""Sums may be reordered and contracted, but NaN and infinity come through."""

_ALIGNMENT = 64
"""Bytes. BLAS may round differently where operands lie differently, so ours lie as torch's do."""

_N, _T = ord("N"), ord("T")


def _register_matrix_product() -> bool:
    """Makes torch's own BLAS known to compiled loops; whether it can be."""
    for path in (Path(torch.__file__).parent / "lib").glob("libtorch_cpu.*"):
        function = getattr(ctypes.CDLL(str(path)), "sgemm_", None)
        if function is not None:
            address = ctypes.cast(function, ctypes.c_void_p).value
            binding.add_symbol("tfnas_sgemm", address)  # type: ignore[no-untyped-call]
            return True
    return False


_HAS_MATRIX_PRODUCT = _register_matrix_product()
_sgemm = types.ExternalFunction("tfnas_sgemm", types.void(*[types.uintp] * 13))


def runs_compiled(tensor: Tensor) -> bool:
    """Whether a tensor is of the kind that the compiled loops take: float32 on the CPU, to stay so.

    None is where torch comes without a BLAS that they could call.
    """
    is_float32 = tensor.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return _HAS_MATRIX_PRODUCT and tensor.device.type == "cpu" and is_float32


def as_pixels(features_BCHW: Tensor) -> Tensor:
    """Channels-last features as pixels by channels, dense; a view of them if they are dense."""
    return features_BCHW.permute(0, 2, 3, 1).reshape(-1, features_BCHW.shape[1]).contiguous()


def as_features(pixels_NC: Tensor, batch_and_space: tuple[int, int, int]) -> Tensor:
    """The inverse of `as_pixels`, for a batch, a height and a width."""
    return pixels_NC.view(*batch_and_space, -1).permute(0, 3, 1, 2)


@compile_loop
def make_matrix(num_rows: int, num_columns: int) -> Any:
    """A float32 matrix, not filled, that begins where BLAS likes it."""
    size = num_rows * num_columns
    memory = np.empty(size + _ALIGNMENT // 4, np.float32)
    first = (-memory.ctypes.data % _ALIGNMENT) // 4
    return memory[first : first + size].reshape(num_rows, num_columns)


@compile_loop
def multiply(a: Any, is_a_turned: bool, b: Any, is_b_turned: bool, alpha: Any, beta: Any, out: Any) -> None:
    """Fills out with alpha * A B + beta * out; A is a or its transpose, B is b or its transpose.

    All are dense in memory, rows first; what has other strides would be misread.
    """
    num_rows, num_columns = out.shape
    # BLAS takes columns for rows: it is told to compute the transpose, B' A'. And it takes addresses.
    letters, sizes, factors = np.empty(2, np.uint8), np.empty(6, np.int32), np.empty(2, np.float32)
    letters[0], letters[1] = _T if is_b_turned else _N, _T if is_a_turned else _N
    sizes[0], sizes[1], sizes[2] = num_columns, num_rows, a.shape[0] if is_a_turned else a.shape[1]
    sizes[3], sizes[4], sizes[5] = b.shape[1], a.shape[1], num_columns
    factors[0], factors[1] = alpha, beta
    size, letter, factor = sizes.ctypes.data, letters.ctypes.data, factors.ctypes.data
    _sgemm(
        letter,
        letter + 1,
        size,
        size + 4,
        size + 8,
        factor,
        b.ctypes.data,
        size + 12,
        a.ctypes.data,
        size + 16,
        factor + 4,
        out.ctypes.data,
        size + 20,
    )
