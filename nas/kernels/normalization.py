"""Batch norm by the batch's statistics, without affine parameters, fused with what follows it.

Torch keeps the normalised features for the activation's gradient, and passes over them once for
each operation; here only the input of the batch norm is kept, and the rest is computed again
where it is needed.

Shapes: B batch, C channels, H W space, N pixels of the batch (B * H * W), O operators.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from nas.kernels import normalization_loops as loops
from nas.kernels.compilation import runs_compiled
from nas.ops import Activation

BN_EPS = 1e-5


def batch_norm_activation(features_BCHW: Tensor, activation: Activation) -> Tensor:
    """Activation of the batch norm of channels-last features."""
    if runs_compiled(features_BCHW):
        out_BCHW: Tensor = _BatchNormActivation.apply(features_BCHW, activation)
        return out_BCHW
    normal_BCHW = F.batch_norm(features_BCHW, None, None, training=True, eps=BN_EPS)
    return F.relu(normal_BCHW, inplace=True) if activation == "relu" else F.silu(normal_BCHW)


def mix_normalized(
    features: Sequence[Tensor], weights_O: Tensor | None, residual_BCHW: Tensor | None
) -> Tensor:
    """Sum of weight * batch norm over features of one shape, plus the residual where there is one.

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


class _BatchNormActivation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features_BCHW: Tensor, activation: Activation) -> Tensor:
        features_NC = _pixels(features_BCHW)
        mean_C, scale_C = loops.mean_and_scale(features_NC, BN_EPS)
        out_BCHW = torch.empty_like(features_BCHW, memory_format=torch.channels_last)
        loops.normalize_and_activate(features_NC, mean_C, scale_C, activation == "relu", _pixels(out_BCHW))
        ctx.save_for_backward(features_BCHW)
        ctx.statistics, ctx.activation = (mean_C, scale_C), activation
        return out_BCHW

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (features_BCHW,) = ctx.saved_tensors
        to_features_BCHW = torch.empty_like(features_BCHW, memory_format=torch.channels_last)
        loops.activation_gradient(
            _pixels(features_BCHW),
            *ctx.statistics,
            ctx.activation == "relu",
            _pixels(gradients[0]),
            _pixels(to_features_BCHW),
        )
        return to_features_BCHW, None


class _MixNormalized(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, weights_O: Tensor | None, residual_BCHW: Tensor | None, *features: Tensor
    ) -> Tensor:
        out_BCHW = torch.empty_like(features[0], memory_format=torch.channels_last)
        out_NC = _pixels(out_BCHW)
        if residual_BCHW is None:
            out_NC.fill(0)
        else:
            out_BCHW.copy_(residual_BCHW)
        weights = [1.0] * len(features) if weights_O is None else weights_O.tolist()
        statistics = []
        for weight, features_BCHW in zip(weights, features, strict=True):
            features_NC = _pixels(features_BCHW)
            statistics.append(loops.mean_and_scale(features_NC, BN_EPS))
            loops.add_normalized(features_NC, *statistics[-1], np.float32(weight), out_NC)
        ctx.save_for_backward(*features)
        ctx.weights, ctx.statistics = weights, statistics
        return out_BCHW

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gradient_NC = _pixels(gradients[0])
        mean_gradient_C = gradient_NC.mean(0, dtype=np.float64)
        to_weights_O = torch.zeros(len(ctx.weights))
        to_features = []
        for index, features_BCHW in enumerate(ctx.saved_tensors):
            to_features_BCHW = torch.empty_like(features_BCHW, memory_format=torch.channels_last)
            to_weights_O[index] = loops.normalized_gradient(
                _pixels(features_BCHW),
                *ctx.statistics[index],
                np.float32(ctx.weights[index]),
                gradient_NC,
                mean_gradient_C,
                _pixels(to_features_BCHW),
            )
            to_features.append(to_features_BCHW)
        to_weights = to_weights_O if ctx.needs_input_grad[0] else None
        return to_weights, gradients[0] if ctx.needs_input_grad[1] else None, *to_features


def _pixels(features_BCHW: Tensor) -> NDArray[np.float32]:
    """Channels-last features as an array_NC; a view wherever they are dense."""
    features_BHWC = features_BCHW.detach().permute(0, 2, 3, 1)
    return features_BHWC.reshape(-1, features_BCHW.shape[1]).numpy()
