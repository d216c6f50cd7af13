"""A layer of the supernet: one candidate operator, or the weighted sum of several.

Shapes: B batch, C channels, H X space, N pixels of the batch, O operators.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nas.supernet.compiled.compilation import as_features, as_pixels, runs_compiled
from nas.supernet.compiled.expansion import LayerInput
from nas.supernet.compiled.mbconv import CompiledMBConv
from nas.supernet.mixed_block import MBConvShape, MBConvWeights, mixed_block


def compiled_block(
    features_BIHX: Tensor,
    candidates: Sequence[MBConvWeights],
    widths: Sequence[int],
    mix_weights_O: Tensor | None,
    shape: MBConvShape,
) -> Tensor:
    """`nas.supernet.mixed_block.mixed_block`, equal to rounding; what the loops cannot take is left to it."""
    if not runs_compiled(features_BIHX):
        return mixed_block(features_BIHX, candidates, widths, mix_weights_O, shape)
    # Slicing is the function's own: autograd would write each slice's gradient a second time.
    flat = [tensor for weights in candidates for tensor in weights]
    out_BPHX: Tensor = _MixedBlock.apply(features_BIHX, mix_weights_O, shape, tuple(widths), *flat)
    return out_BPHX


class _MixedBlock(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features_BCHX: Tensor,
        mix_weights_O: Tensor | None,
        shape: MBConvShape,
        widths: tuple[int, ...],
        *flat: Tensor | None,
    ) -> Tensor:
        batch, num_channels, height, width = features_BCHX.shape
        features_NC = as_pixels(features_BCHX.detach())
        layer_input = LayerInput(features_NC, (batch, height, width))
        out_space = (batch, -(-height // shape.stride), -(-width // shape.stride))
        assert flat[0] is not None
        assert flat[0].shape[1] == num_channels
        candidates = _unflatten(tuple(None if tensor is None else tensor.detach() for tensor in flat))
        if shape.keeps_shape:
            out_NP = features_NC.clone()
        else:
            out_NP = torch.zeros(math.prod(out_space), candidates[0].projection_WP.shape[1])
        mix_weights = [1.0] * len(widths) if mix_weights_O is None else mix_weights_O.tolist()
        ctx.runs = [
            CompiledMBConv(
                layer_input, weights.first(num_active), shape, mix_weight, out_NP.numpy(), trains=trains
            )
            for weights, num_active, mix_weight, trains in zip(
                candidates,
                widths,
                mix_weights,
                map(any, _split(ctx.needs_input_grad[_NUM_OTHERS:])),
                strict=True,
            )
        ]
        ctx.space, ctx.num_channels, ctx.keeps_shape = (batch, height, width), num_channels, shape.keeps_shape
        ctx.flat, ctx.widths = flat, widths
        return as_features(out_NP, out_space)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gradient_NP = as_pixels(gradients[0])
        mean_gradient_P = gradient_NP.numpy().mean(0, dtype=np.float64).astype(np.float32)
        if ctx.keeps_shape:
            to_features_NC = gradient_NP.clone()
        else:
            to_features_NC = torch.zeros(math.prod(ctx.space), ctx.num_channels)
        to_mix_weights: list[float] = []
        to_flat: list[Tensor | None] = []
        for index, (width, needed, weights) in enumerate(
            zip(ctx.widths, _split(ctx.needs_input_grad[_NUM_OTHERS:]), _unflatten(ctx.flat), strict=True)
        ):
            # Each run is let go as soon as it is done with.
            run, ctx.runs[index] = ctx.runs[index], None
            to_weights = _gradients_like(weights, width) if any(needed) else None
            to_mix_weights.append(
                run.backward(
                    gradient_NP.numpy(),
                    mean_gradient_P,
                    to_features_NC.numpy(),
                    None if to_weights is None else to_weights.first(width),
                )
            )
            to_flat += [None] * len(needed) if to_weights is None else to_weights
        to_mix_weights_O = torch.tensor(to_mix_weights) if ctx.needs_input_grad[1] else None
        return as_features(to_features_NC, ctx.space), to_mix_weights_O, None, None, *to_flat


_NUM_OTHERS = 4
"""Arguments of `_MixedBlock` before the weights."""


def _split(flat: Sequence[Any]) -> list[Sequence[Any]]:
    """What belongs to each candidate."""
    size = len(MBConvWeights._fields)
    return [flat[first : first + size] for first in range(0, len(flat), size)]


def _unflatten(flat: Sequence[Tensor | None]) -> list[MBConvWeights]:
    return [MBConvWeights(*each) for each in _split(flat)]


def _gradients_like(weights: MBConvWeights, width: int) -> MBConvWeights:
    """Memory for gradients; those of channels that are not active are 0."""
    gradients = _unflatten([None if tensor is None else torch.empty_like(tensor) for tensor in weights])[0]
    for name, gradient in zip(gradients._fields, gradients, strict=True):
        if gradient is not None and name != "se_reduce_bias_R":
            gradient.numpy()[width:] = 0
    return gradients
