"""How loops are compiled, and what they share.

Shapes: N pixels of the batch, C channels.
"""

import ctypes
import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numba
import numpy as np
import torch
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic
from torch import Tensor


def _loops_dir() -> str:
    """Where compiled loops are kept: a folder for each state of this package.

    numba looks at the file of a function alone, and would go on with what the function had called when
    another file was different.
    """
    sources = sorted(Path(__file__).parent.glob("*.py"))
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    base = numba.config.CACHE_DIR or Path(__file__).parent / "__pycache__"
    return str(Path(base) / f"loops-{digest[:16]}")


_LOOPS_DIR = _loops_dir()


def compile_loop(function: Callable[..., Any]) -> Any:
    """Compiles a function when it is first called.

    Sums may be reordered and contracted, but NaN and infinity come through.
    """
    # It is read here and now; what others compile keeps its own place.
    with patch.object(numba.config, "CACHE_DIR", _LOOPS_DIR):
        return numba.njit(fastmath={"reassoc", "contract"}, error_model="numpy", nogil=True, cache=True)(
            function
        )


_ALIGNMENT = 64
"""Bytes. BLAS may round differently where operands lie differently, so ours lie as torch's do."""

_N, _T = ord("N"), ord("T")


def _register_matrix_product() -> bool:
    """Makes torch's own BLAS known to compiled loops; whether it can be."""
    # Of a library and all that it depends on.
    function = getattr(ctypes.CDLL(torch._C.__file__), "sgemm_", None)
    if function is None:
        warnings.warn(
            "torch comes without a BLAS that compiled loops can call; searches on the CPU take several times "
            "as long",
            stacklevel=2,
        )
        return False
    binding.add_symbol("tfnas_sgemm", ctypes.cast(function, ctypes.c_void_p).value)  # type: ignore[no-untyped-call]
    return True


_HAS_MATRIX_PRODUCT = _register_matrix_product()


def runs_compiled(tensor: Tensor) -> bool:
    """Whether a tensor is of the kind that the compiled loops take: float32 on the CPU, to stay so.

    False of any tensor where torch comes without a BLAS that they could call.
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


@intrinsic
def _sgemm(
    _: Any, turns_b: Any, turns_a: Any, sizes: Any, alpha: Any, b: Any, a: Any, beta: Any, out: Any
) -> Any:
    """The call of BLAS, which takes every number by its address: they are put on the stack for it.

    Raises:
        TypingError: an array is not of float32, or not dense, rows first; its strides would be ignored.
    """
    for array in (a, b, out):
        if not (isinstance(array, types.Array) and array.dtype == types.float32 and array.layout == "C"):
            raise TypingError(f"a matrix product takes dense float32 arrays, rows first; not {array}")
    letter, number, counts = types.uint8, types.float32, types.UniTuple(types.int32, 6)
    signature = types.void(letter, letter, counts, number, b, a, number, out)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        turns_b, turns_a, sizes, alpha, b, a, beta, out = arguments
        num_columns, num_rows, num_inner, b_stride, a_stride, out_stride = (
            cgutils.alloca_once_value(builder, size) for size in cgutils.unpack_tuple(builder, sizes, 6)
        )
        turns_b, turns_a, alpha, beta = (
            cgutils.alloca_once_value(builder, value) for value in (turns_b, turns_a, alpha, beta)
        )
        b, a, out = (
            context.make_array(kind)(context, builder, value).data
            for kind, value in ((signature.args[4], b), (signature.args[5], a), (signature.args[7], out))
        )
        addresses = [turns_b, turns_a, num_columns, num_rows, num_inner, alpha]
        addresses += [b, b_stride, a, a_stride, beta, out, out_stride]
        types_of = [address.type for address in addresses]
        kind = ir.FunctionType(ir.VoidType(), types_of)  # type: ignore[no-untyped-call]
        function = cgutils.get_or_insert_function(builder.module, kind, "tfnas_sgemm")
        builder.call(function, addresses)
        return context.get_dummy_value()

    return signature, generate


@compile_loop
def multiply(a: Any, is_a_turned: bool, b: Any, is_b_turned: bool, alpha: Any, beta: Any, out: Any) -> None:
    """Fills out with alpha * A B + beta * out; A is a or its transpose, B is b or its transpose."""
    num_rows, num_columns = out.shape
    num_inner = a.shape[0] if is_a_turned else a.shape[1]
    # BLAS takes columns for rows: it is told to compute the transpose, B' A'.
    sizes = (
        np.int32(num_columns),
        np.int32(num_rows),
        np.int32(num_inner),
        np.int32(b.shape[1]),
        np.int32(a.shape[1]),
        np.int32(num_columns),
    )
    _sgemm(_T if is_b_turned else _N, _T if is_a_turned else _N, sizes, alpha, b, a, beta, out)
