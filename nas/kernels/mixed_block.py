"""A layer of the supernet: one candidate operator, or the weighted sum of several.

Shapes: B batch, C channels, H X space, N pixels of the batch, O operators.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nas.kernels import normalization_loops as loops
from nas.kernels.compilation import BN_EPS, as_features, as_pixels, runs_compiled
from nas.kernels.expansion import LayerInput
from nas.kernels.mbconv import CompiledMBConv, MBConvShape, MBConvWeights, compose_mbconv


def mixed_block(
    features_BCHX: Tensor,
    candidates: Sequence[MBConvWeights],
    mix_weights_O: Tensor | None,
    shape: MBConvShape,
) -> Tensor:
    """Sum of weight * batch norm of each candidate, plus the input where the shape is kept.

    Batch norm is by the batch's statistics everywhere, without affine parameters. The input is
    added once: candidates add it each, with weights that sum to 1.

    Args:
        features_BCHX: channels last.
        mix_weights_O: None for ones.
    """
    if not runs_compiled(features_BCHX):
        return _compose(features_BCHX, candidates, mix_weights_O, shape)
    flat = [tensor for weights in candidates for tensor in weights]
    out_BCHX: Tensor = _MixedBlock.apply(features_BCHX, mix_weights_O, shape, *flat)
    return out_BCHX


def _compose(
    features_BCHX: Tensor,
    candidates: Sequence[MBConvWeights],
    mix_weights_O: Tensor | None,
    shape: MBConvShape,
) -> Tensor:
    outputs = [compose_mbconv(features_BCHX, weights, shape) for weights in candidates]
    terms = [F.batch_norm(out, None, None, training=True, eps=BN_EPS) for out in outputs]
    if mix_weights_O is not None:
        terms = [weight * term for weight, term in zip(mix_weights_O, terms, strict=True)]
    terms += [features_BCHX] if shape.keeps_shape else []
    return terms[0] if len(terms) == 1 else torch.stack(terms).sum(0)


class _MixedBlock(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features_BCHX: Tensor,
        mix_weights_O: Tensor | None,
        shape: MBConvShape,
        *flat: Tensor | None,
    ) -> Tensor:
        batch, num_channels, height, width = features_BCHX.shape
        features_NC = as_pixels(features_BCHX)
        layer_input = LayerInput(features_NC, (batch, height, width))
        size = len(MBConvWeights._fields)
        runs = [
            CompiledMBConv(
                layer_input,
                MBConvWeights(*flat[first : first + size]),  # type: ignore[arg-type]
                shape,
                trains=any(ctx.needs_input_grad[3 + first : 3 + first + size]),
            )
            for first in range(0, len(flat), size)
        ]
        layer_input.free_scratch()
        mix_weights = [1.0] * len(runs) if mix_weights_O is None else mix_weights_O.tolist()
        out_NP = features_NC.clone() if shape.keeps_shape else torch.zeros_like(runs[0].out_MP)
        statistics = [
            loops.add_normalized(run.out_MP.numpy(), BN_EPS, np.float32(weight), out_NP.numpy())
            for run, weight in zip(runs, mix_weights, strict=True)
        ]
        ctx.runs, ctx.mix_weights, ctx.statistics, ctx.shape = runs, mix_weights, statistics, shape
        ctx.space, ctx.num_channels = (batch, height, width), num_channels
        out_space = (batch, -(-height // shape.stride), -(-width // shape.stride))
        return as_features(out_NP, out_space)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gradient_NP = as_pixels(gradients[0])
        gradient = gradient_NP.numpy()
        mean_gradient_P = gradient.mean(0, dtype=np.float64).astype(np.float32)
        if ctx.shape.keeps_shape:
            to_features_NC = gradient_NP.clone()
        else:
            to_features_NC = torch.zeros(math.prod(ctx.space), ctx.num_channels)
        to_mix_weights, to_flat = [], []
        for index, (weight, statistics) in enumerate(zip(ctx.mix_weights, ctx.statistics, strict=True)):
            # Each run is let go as soon as it is done with.
            run, ctx.runs[index] = ctx.runs[index], None
            to_out_MP = torch.empty_like(run.out_MP)
            to_mix_weights.append(
                loops.normalized_gradient(
                    run.out_MP.numpy(),
                    *statistics,
                    np.float32(weight),
                    gradient,
                    mean_gradient_P,
                    to_out_MP.numpy(),
                )
            )
            to_weights = run.backward(to_out_MP, to_features_NC)
            to_flat += [to_weights.get(name) for name in MBConvWeights._fields]
        to_mix_weights_O = torch.tensor(to_mix_weights) if ctx.needs_input_grad[1] else None
        return as_features(to_features_NC, ctx.space), to_mix_weights_O, None, *to_flat
