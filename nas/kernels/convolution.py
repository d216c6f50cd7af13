"""Pointwise and depthwise convolutions.

Shapes: B batch, C channels (I in, O out), H W space, K kernel size.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nas.kernels.depthwise_gradient import depthwise_weight_gradient


def pointwise_conv(features_BIHW: Tensor, weight_OI: Tensor) -> Tensor:
    """1x1 convolution as one matrix product over all pixels."""
    batch, in_channels, height, width = features_BIHW.shape
    pixels_NI = features_BIHW.permute(0, 2, 3, 1).reshape(-1, in_channels)
    out_BHWO = (pixels_NI @ weight_OI.t()).view(batch, height, width, -1)
    return out_BHWO.permute(0, 3, 1, 2)


def depthwise_conv(features_BCHW: Tensor, weight_C1KK: Tensor, stride: int) -> Tensor:
    """Depthwise convolution with same padding."""
    if features_BCHW.shape[2:] == (1, 1):
        # Padding is all that the other taps see; as a convolution this is slow beyond reason.
        centre = weight_C1KK.shape[-1] // 2
        return features_BCHW * weight_C1KK[:, 0, centre, centre, None, None]
    out_BCHW: Tensor = _DepthwiseConv.apply(features_BCHW, weight_C1KK, stride)
    return out_BCHW


class _DepthwiseConv(torch.autograd.Function):
    """torch's convolution, with our own gradient of the weight where torch's is slow."""

    @staticmethod
    def forward(ctx: Any, features_BCHW: Tensor, weight_C1KK: Tensor, stride: int) -> Tensor:
        # A frozen weight needs no features; their shape is all that the other gradient takes.
        kept_BCHW = features_BCHW if ctx.needs_input_grad[1] else features_BCHW.new_empty(())
        ctx.save_for_backward(kept_BCHW, weight_C1KK)
        ctx.features_shape, ctx.stride = features_BCHW.shape, stride
        padding, num_channels = weight_C1KK.shape[-1] // 2, len(weight_C1KK)
        return F.conv2d(features_BCHW, weight_C1KK, None, stride, padding, 1, num_channels)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        features_BCHW, weight_C1KK = ctx.saved_tensors
        stride = ctx.stride
        gradient_BCHW = gradients[0].contiguous(memory_format=torch.channels_last)
        to_features = to_weight = None
        if ctx.needs_input_grad[0]:
            # Only shape and format of the features matter here; memory never touched costs nothing.
            like_BCHW = torch.empty(
                ctx.features_shape,
                dtype=gradient_BCHW.dtype,
                device=gradient_BCHW.device,
                memory_format=torch.channels_last,
            )
            to_features = torch.ops.aten.convolution_backward(
                gradient_BCHW,
                like_BCHW,
                weight_C1KK,
                None,
                [stride] * 2,
                [weight_C1KK.shape[-1] // 2] * 2,
                [1, 1],
                False,
                [0, 0],
                len(weight_C1KK),
                [True, False, False],
            )[0]
        if ctx.needs_input_grad[1]:
            to_weight = depthwise_weight_gradient(features_BCHW, gradient_BCHW, weight_C1KK, stride)
        return to_features, to_weight, None
