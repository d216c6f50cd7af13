"""A layer of the supernet by compiled loops, as one autograd function.

Shapes: B batch, I input channels, P output channels, H X space, N pixels of the batch at the input's
resolution, M at the output's, O operators.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nas.supernet.compiled.active_weights import ActiveWeights, WeightGradients, WeightViews
from nas.supernet.compiled.candidate_run import CandidateRun
from nas.supernet.compiled.depthwise_convolution import (
    BatchAndSpace,
    Floats,
    after_stride,
    as_features,
    as_pixels,
)
from nas.supernet.compiled.expansion import LayerInput
from nas.supernet.compiled.normalization_loops import mean_over_pixels
from nas.supernet.mixed_block import MBConvShape, MBConvWeights, mixed_block


class CompiledBlock:
    """`nas.supernet.mixed_block.mixed_block`, equal to rounding; differentiable once.

    It calls `mixed_block` for inputs that the loops do not take. It keeps views of the weights that it was
    called with; a copy starts without them.
    """

    def __init__(self) -> None:
        self._views = WeightViews()

    def __reduce__(self) -> tuple[type["CompiledBlock"], tuple[()]]:
        return CompiledBlock, ()

    def __call__(
        self,
        features_BIHX: Tensor,
        candidates: Sequence[MBConvWeights],
        widths: Sequence[int],
        mix_weights_O: Tensor | None,
        shape: MBConvShape,
    ) -> Tensor:
        """See `nas.supernet.mixed_block.mixed_block`."""
        if not _suits_loops(features_BIHX, shape.stride):
            return mixed_block(features_BIHX, candidates, widths, mix_weights_O, shape)
        active = [
            self._views.first(weights, width) for weights, width in zip(candidates, widths, strict=True)
        ]
        # The function slices by itself: autograd would write the gradient of each slice a second time.
        flat = [tensor for weights in candidates for tensor in weights]
        out_BPHX: Tensor = _CompiledFunction.apply(features_BIHX, mix_weights_O, shape, active, *flat)
        return out_BPHX


def _suits_loops(features_BIHX: Tensor, stride: int) -> bool:
    """Whether they are float32 on the CPU, stay so, and batch norm sees several values per channel."""
    if torch.compiler.is_compiling():
        return False
    batch, _, height, width = features_BIHX.shape
    return (
        features_BIHX.dtype == torch.float32
        and features_BIHX.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
        and batch * -(-height // stride) * -(-width // stride) > 1
    )


class _CompiledFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features_BIHX: Tensor,
        mix_weights_O: Tensor | None,
        shape: MBConvShape,
        active: Sequence[ActiveWeights],
        *flat: Tensor | None,
    ) -> Tensor:
        ctx.shape, ctx.active = shape, active
        # What torch saves, it protects: from changes in place and from a second, unannounced backward.
        ctx.save_for_backward(features_BIHX, mix_weights_O, *flat)
        ctx.runs, out_MP = _run_candidates(ctx, features_BIHX, mix_weights_O)
        return as_features(out_MP, after_stride(_batch_and_space(features_BIHX), shape.stride))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        features_BIHX, mix_weights_O, *flat = ctx.saved_tensors
        runs, ctx.runs = ctx.runs, None
        if runs is None:
            # The graph was retained: an earlier backward has used the runs up.
            runs, _ = _run_candidates(ctx, features_BIHX, mix_weights_O)
        gradient_MP = as_pixels(gradients[0])
        batch_and_space = _batch_and_space(features_BIHX)
        if ctx.shape.keeps_shape:
            to_features_NI = _copy(gradient_MP)
        else:
            to_features_NI = _zeros(math.prod(batch_and_space), features_BIHX.shape[1])
        arrays = gradient_MP, mean_over_pixels(gradient_MP), to_features_NI
        to_mix_weights: list[float] = []
        to_flat: list[Tensor | None] = []
        for active, needed, weights in zip(ctx.active, _needs_gradients(ctx), _split(flat), strict=True):
            width = len(active.expansion_WI)
            to_weights = WeightGradients(MBConvWeights(*weights), width) if any(needed) else None
            # A run's memory is released as soon as it is done.
            to_mix_weights.append(runs.pop(0).backward(*arrays, to_weights))
            to_flat += [None] * len(needed) if to_weights is None else to_weights.tensors
        to_mix_weights_O = gradients[0].new_tensor(to_mix_weights) if ctx.needs_input_grad[1] else None
        return as_features(to_features_NI, batch_and_space), to_mix_weights_O, None, None, *to_flat


_NUM_OTHERS = 4
"""Arguments of `_CompiledFunction` before the weights."""


def _run_candidates(
    ctx: Any, features_BIHX: Tensor, mix_weights_O: Tensor | None
) -> tuple[list[CandidateRun], Floats]:
    """The forward pass of all candidates, and their sum, (M, P)."""
    features_NI = as_pixels(features_BIHX.detach())
    batch_and_space = _batch_and_space(features_BIHX)
    layer_input = LayerInput(features_NI, batch_and_space)
    # BLAS would read past the end.
    assert all(weights.expansion_WI.shape[1] == features_NI.shape[1] for weights in ctx.active)
    if ctx.shape.keeps_shape:
        out_MP = _copy(features_NI)
    else:
        num_out_pixels = math.prod(after_stride(batch_and_space, ctx.shape.stride))
        out_MP = _zeros(num_out_pixels, ctx.active[0].projection_WP.shape[1])
    mix_weights = [1.0] * len(ctx.active) if mix_weights_O is None else mix_weights_O.tolist()
    runs = [
        CandidateRun(layer_input, weights, ctx.shape, mix_weight, out_MP, trains=any(needed))
        for weights, mix_weight, needed in zip(ctx.active, mix_weights, _needs_gradients(ctx), strict=True)
    ]
    return runs, out_MP


def _batch_and_space(features_BCHX: Tensor) -> BatchAndSpace:
    batch, _, height, width = features_BCHX.shape
    return batch, height, width


# Memory by torch, which aligns it: what follows may round differently where it is aligned differently.


def _zeros(num_rows: int, num_columns: int) -> Floats:
    return torch.zeros(num_rows, num_columns, dtype=torch.float32, device="cpu").numpy()


def _copy(array: Floats) -> Floats:
    copied: Floats = torch.from_numpy(array).clone().numpy()
    return copied


def _needs_gradients(ctx: Any) -> list[Sequence[bool]]:
    """Whether each weight of each candidate needs its gradient."""
    return _split(ctx.needs_input_grad[_NUM_OTHERS:])


def _split(flat: Sequence[Any]) -> list[Sequence[Any]]:
    """The parts of each candidate."""
    size = len(MBConvWeights._fields)
    return [flat[first : first + size] for first in range(0, len(flat), size)]
