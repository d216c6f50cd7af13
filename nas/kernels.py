"""The supernet's arithmetic: convolutions and batch norm for channels-last features.

Shapes: B batch, C channels (I in, O out), H W space, K kernel size.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nas.depthwise_gradient import depthwise_weight_gradient
from nas.ops import Activation

BN_EPS = 1e-5


def pointwise_conv(features_BIHW: Tensor, weight_OI: Tensor) -> Tensor:
    """1x1 convolution as one matrix product over all pixels."""
    out_BHWO = F.linear(features_BIHW.permute(0, 2, 3, 1), weight_OI)
    return out_BHWO.permute(0, 3, 1, 2)


def depthwise_conv(features_BCHW: Tensor, weight_C1KK: Tensor, stride: int) -> Tensor:
    """Depthwise convolution with same padding."""
    if features_BCHW.shape[2:] == (1, 1):
        # Padding is all that the other taps see; as a convolution this is slow beyond reason.
        centre = weight_C1KK.shape[-1] // 2
        return features_BCHW * weight_C1KK[:, 0, centre, centre, None, None]
    out_BCHW: Tensor = _DepthwiseConv.apply(features_BCHW, weight_C1KK, stride)  # type: ignore[no-untyped-call]
    return out_BCHW


class _DepthwiseConv(torch.autograd.Function):
    """torch's convolution, with our own gradient of the weight where torch's is slow."""

    @staticmethod
    def forward(ctx: Any, features_BCHW: Tensor, weight_C1KK: Tensor, stride: int) -> Tensor:
        needs_features = ctx.needs_input_grad[1]
        ctx.save_for_backward(features_BCHW if needs_features else features_BCHW.new_empty(0), weight_C1KK)
        ctx.input_shape, ctx.stride = features_BCHW.shape, stride
        padding, num_channels = weight_C1KK.shape[-1] // 2, len(weight_C1KK)
        return F.conv2d(features_BCHW, weight_C1KK, None, stride, padding, 1, num_channels)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (gradient_BCHW,) = gradients
        features_BCHW, weight_C1KK = ctx.saved_tensors
        stride, num_channels = ctx.stride, len(weight_C1KK)
        to_features = to_weight = None
        gradient_BCHW = gradient_BCHW.contiguous(memory_format=torch.channels_last)
        if ctx.needs_input_grad[0]:
            to_features = torch.nn.grad.conv2d_input(
                ctx.input_shape,
                weight_C1KK,
                gradient_BCHW,
                stride,
                weight_C1KK.shape[-1] // 2,
                1,
                num_channels,
            )
        if ctx.needs_input_grad[1]:
            to_weight = depthwise_weight_gradient(features_BCHW, gradient_BCHW, weight_C1KK, stride)
        return to_features, to_weight, None


def batch_norm_activation(features_BCHW: Tensor, activation: Activation | None) -> Tensor:
    """Batch norm by the batch's statistics, without affine parameters, then the activation."""
    normal_BCHW = F.batch_norm(features_BCHW, None, None, training=True, eps=BN_EPS)
    if activation is None:
        return normal_BCHW
    return F.relu(normal_BCHW, inplace=True) if activation == "relu" else F.silu(normal_BCHW)
