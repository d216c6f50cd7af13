"""Matrix products within compiled loops, by the BLAS that comes with torch."""

import ctypes
from typing import Any

import numpy as np
import torch
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

from nas.supernet.compiled.loop_compiler import compile_loop

_ALIGNMENT = 64
"""Bytes. BLAS may round differently where operands are aligned differently, so we align as torch does."""

_N, _T = ord("N"), ord("T")


def _register_sgemm() -> None:
    """Makes torch's BLAS known to compiled loops.

    Raises:
        RuntimeError: torch comes without one that can be called.
    """
    # The lookup includes all libraries that this one depends on.
    function = getattr(ctypes.CDLL(torch._C.__file__), "sgemm_", None)
    if function is None:
        raise RuntimeError("torch comes without a BLAS that compiled loops can call")
    binding.add_symbol("tfnas_sgemm", ctypes.cast(function, ctypes.c_void_p).value)  # type: ignore[no-untyped-call]


_register_sgemm()


@compile_loop
def make_matrix(num_rows: int, num_columns: int) -> Any:
    """An uninitialized, aligned float32 matrix."""
    size = num_rows * num_columns
    memory = np.empty(size + _ALIGNMENT // 4, np.float32)
    first = (-memory.ctypes.data % _ALIGNMENT) // 4
    return memory[first : first + size].reshape(num_rows, num_columns)


@intrinsic
def _sgemm(
    _: Any, turns_b: Any, turns_a: Any, sizes: Any, alpha: Any, b: Any, a: Any, beta: Any, out: Any
) -> Any:
    """Calls BLAS, which takes the address of every number: they are put on the stack.

    Sizes have 64 bits, of which a BLAS with 32-bit integers reads the lower half.

    Raises:
        TypingError: an array is not float32, or not dense with rows first; its strides would be ignored.
    """
    for array in (a, b, out):
        if not (isinstance(array, types.Array) and array.dtype == types.float32 and array.layout == "C"):
            raise TypingError(f"a matrix product takes dense float32 arrays, rows first; not {array}")
    letter, number, counts = types.uint8, types.float32, types.UniTuple(types.int64, 6)
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
        kind = ir.FunctionType(ir.VoidType(), [address.type for address in addresses])  # type: ignore[no-untyped-call]
        function = cgutils.get_or_insert_function(builder.module, kind, "tfnas_sgemm")
        builder.call(function, addresses)
        return context.get_dummy_value()

    return signature, generate


@compile_loop
def multiply(a: Any, is_a_turned: bool, b: Any, is_b_turned: bool, alpha: Any, beta: Any, out: Any) -> None:
    """Fills out with alpha * A B + beta * out, where A is a or its transpose, and B is b or its transpose."""
    num_rows, num_columns = out.shape
    num_inner = a.shape[0] if is_a_turned else a.shape[1]
    # BLAS stores columns first, so it computes the transpose, B' A'.
    sizes = (num_columns, num_rows, num_inner, b.shape[1], a.shape[1], num_columns)
    _sgemm(_T if is_b_turned else _N, _T if is_a_turned else _N, sizes, alpha, b, a, beta, out)
