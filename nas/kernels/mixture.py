"""The weighted sum of normalised features.

Shapes: B batch, C channels, H W space, N pixels of the batch (B * H * W), O operators.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nas.kernels import normalization_loops as loops
from nas.kernels.compilation import BN_EPS, as_pixels, runs_compiled


def mix_normalized(
    features: Sequence[Tensor], weights_O: Tensor | None, residual_BCHW: Tensor | None
) -> Tensor:
    """Sum of weight * batch norm over features of one shape, plus the residual where there is one.

    Batch norm is by the batch's statistics, without affine parameters.

    Args:
        features: one channels-last tensor an operator.
        weights_O: None for ones.
        residual_BCHW: added once, unweighted.
    """
    if runs_compiled(features[0]):
        out_BCHW: Tensor = _MixNormalized.apply(weights_O, residual_BCHW, *features)
        return out_BCHW
    terms = [F.batch_norm(each, None, None, training=True, eps=BN_EPS) for each in features]
    if weights_O is not None:
        terms = [weight * term for weight, term in zip(weights_O, terms, strict=True)]
    terms += [] if residual_BCHW is None else [residual_BCHW]
    return terms[0] if len(terms) == 1 else torch.stack(terms).sum(0)


class _MixNormalized(torch.autograd.Function):
    """Keeps nothing but the features before batch norm; adds each term in one pass."""

    @staticmethod
    def forward(
        ctx: Any, weights_O: Tensor | None, residual_BCHW: Tensor | None, *features: Tensor
    ) -> Tensor:
        out_BCHW = torch.empty_like(features[0], memory_format=torch.channels_last)
        if residual_BCHW is None:
            out_BCHW.zero_()
        else:
            out_BCHW.copy_(residual_BCHW)
        weights = [1.0] * len(features) if weights_O is None else weights_O.tolist()
        ctx.statistics = [
            loops.add_normalized(as_pixels(each), BN_EPS, np.float32(weight), as_pixels(out_BCHW))
            for each, weight in zip(features, weights, strict=True)
        ]
        ctx.save_for_backward(*features)
        ctx.weights = weights
        return out_BCHW

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gradient_NC = as_pixels(gradients[0])
        mean_gradient_C = gradient_NC.mean(0, dtype=np.float64).astype(np.float32)
        to_weights, to_features = [], []
        for weight, statistics, features_BCHW in zip(
            ctx.weights, ctx.statistics, ctx.saved_tensors, strict=True
        ):
            to_features_BCHW = torch.empty_like(features_BCHW, memory_format=torch.channels_last)
            to_weight = loops.normalized_gradient(
                as_pixels(features_BCHW),
                *statistics,
                np.float32(weight),
                gradient_NC,
                mean_gradient_C,
                as_pixels(to_features_BCHW),
            )
            to_weights.append(to_weight)
            to_features.append(to_features_BCHW)
        to_weights_O = torch.tensor(to_weights) if ctx.needs_input_grad[0] else None
        return to_weights_O, gradients[0] if ctx.needs_input_grad[1] else None, *to_features
