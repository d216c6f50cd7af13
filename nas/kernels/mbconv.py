"""A candidate operator up to its last batch norm, forward and backward.

Shapes: B batch, I input channels, M mid channels (W of them active, the first ones), R reduced
channels of squeeze-and-excitation, P output channels, H W space, N pixels of the batch.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nas.kernels import normalization_loops as loops
from nas.kernels.compilation import BN_EPS, as_pixels, runs_compiled
from nas.kernels.depthwise import depthwise_conv, depthwise_input_gradient, depthwise_weight_gradient
from nas.ops import Activation


class MBConvWeights(NamedTuple):
    """Weights at the maximum width, mid channels first, so that the active ones are one block."""

    expansion_MI: Tensor
    depthwise_M1KK: Tensor
    projection_MP: Tensor
    se_reduce_MR: Tensor | None = None
    se_reduce_bias_R: Tensor | None = None
    se_expand_MR: Tensor | None = None
    se_expand_bias_M: Tensor | None = None


def mbconv(
    features_BIHW: Tensor, weights: MBConvWeights, *, width: int, stride: int, activation: Activation
) -> Tensor:
    """Expansion, depthwise convolution, squeeze-and-excitation and projection.

    Batch norm after expansion and depthwise convolution is by the batch's statistics, without
    affine parameters; that after the projection is left to the caller.

    Args:
        features_BIHW: channels last.
        weights: without the `se_` ones there is no squeeze-and-excitation.
        width: number of active mid channels.
    """
    if runs_compiled(features_BIHW):
        out_BPHW: Tensor = _MBConv.apply(features_BIHW, width, stride, activation == "relu", *weights)
        return out_BPHW
    return compose_mbconv(features_BIHW, weights, width=width, stride=stride, activation=activation)


def compose_mbconv(
    features_BIHW: Tensor, weights: MBConvWeights, *, width: int, stride: int, activation: Activation
) -> Tensor:
    """`mbconv` made of torch's own functions, for any device and type."""
    activate = F.relu if activation == "relu" else F.silu
    depthwise_W1KK = weights.depthwise_M1KK[:width]
    mid_BWHW = F.conv2d(features_BIHW, weights.expansion_MI[:width, :, None, None])
    mid_BWHW = activate(F.batch_norm(mid_BWHW, None, None, training=True, eps=BN_EPS))
    padding = depthwise_W1KK.shape[-1] // 2
    mid_BWHW = F.conv2d(mid_BWHW, depthwise_W1KK, None, stride, padding, groups=width)
    mid_BWHW = activate(F.batch_norm(mid_BWHW, None, None, training=True, eps=BN_EPS))
    if weights.se_reduce_MR is not None:
        assert weights.se_expand_MR is not None
        assert weights.se_expand_bias_M is not None
        reduced_BR = activate(
            F.linear(mid_BWHW.mean((2, 3)), weights.se_reduce_MR[:width].t(), weights.se_reduce_bias_R)
        )
        gates_BW = F.linear(reduced_BR, weights.se_expand_MR[:width], weights.se_expand_bias_M[:width])
        mid_BWHW = mid_BWHW * torch.sigmoid(gates_BW)[:, :, None, None]
    return F.conv2d(mid_BWHW, weights.projection_MP[:width].t()[:, :, None, None])


class _MBConv(torch.autograd.Function):
    """Keeps the inputs of the two batch norms, and the activations only for trained weights."""

    @staticmethod
    def forward(
        ctx: Any, features_BIHW: Tensor, width: int, stride: int, is_relu: bool, *tensors: Tensor | None
    ) -> Tensor:
        weights = _active(tensors, width)
        expanded_BWHW = _multiply_pixels(features_BIHW, weights.expansion_MI.t())
        active_BWHW = torch.empty_like(expanded_BWHW)
        first = loops.normalize_and_activate(
            as_pixels(expanded_BWHW), BN_EPS, is_relu, as_pixels(active_BWHW)
        )
        filtered_BWHW = depthwise_conv(active_BWHW, weights.depthwise_M1KK, stride)
        gated_BWHW = torch.empty_like(filtered_BWHW, memory_format=torch.channels_last)
        second = loops.normalize_and_activate(
            as_pixels(filtered_BWHW), BN_EPS, is_relu, as_pixels(gated_BWHW)
        )
        gate = None
        if weights.se_reduce_MR is not None:
            gate = _Gate(weights, gated_BWHW.mean((2, 3)), is_relu)
            loops.multiply_images(as_pixels(gated_BWHW), gate.gates_BW.numpy())
        out_BPHW = _multiply_pixels(gated_BWHW, weights.projection_MP)

        trains = any(ctx.needs_input_grad[4:])
        kept = (active_BWHW, gated_BWHW) if trains else (None, None)
        ctx.save_for_backward(features_BIHW, expanded_BWHW, filtered_BWHW, *kept, *tensors)
        ctx.width, ctx.stride, ctx.is_relu = width, stride, is_relu
        ctx.statistics, ctx.gate = (first, second), gate
        return out_BPHW

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        features_BIHW, expanded_BWHW, filtered_BWHW, active_BWHW, gated_BWHW, *tensors = ctx.saved_tensors
        weights = _active(tensors, ctx.width)
        first, second = ctx.statistics
        trains = gated_BWHW is not None
        to_weights: dict[str, Tensor] = {}

        gradient_NP = _pixels(gradients[0])
        if trains:
            to_weights["projection_MP"] = _pixels(gated_BWHW).t() @ gradient_NP
        to_gated_NW = gradient_NP @ weights.projection_MP.t()
        num_images = len(features_BIHW)
        scales_BW, offsets_BW = _NO_GATE, _NO_GATE
        if ctx.gate is not None:
            to_gates_BW = loops.gate_gradient(
                as_pixels(filtered_BWHW), *second, ctx.is_relu, to_gated_NW.numpy(), num_images
            )
            to_means_BW = ctx.gate.backward(weights, torch.from_numpy(to_gates_BW), to_weights, trains)
            num_pixels = len(to_gated_NW) // num_images
            scales_BW, offsets_BW = ctx.gate.gates_BW.numpy(), (to_means_BW / num_pixels).numpy()
        to_filtered_BWHW = torch.empty_like(filtered_BWHW, memory_format=torch.channels_last)
        loops.activation_gradient(
            as_pixels(filtered_BWHW),
            *second,
            ctx.is_relu,
            to_gated_NW.numpy(),
            scales_BW,
            offsets_BW,
            as_pixels(to_filtered_BWHW),
        )
        if trains:
            to_weights["depthwise_M1KK"] = depthwise_weight_gradient(
                active_BWHW, to_filtered_BWHW, weights.depthwise_M1KK, ctx.stride
            )
        to_active_BWHW = depthwise_input_gradient(
            to_filtered_BWHW, weights.depthwise_M1KK, ctx.stride, expanded_BWHW.shape
        )
        to_expanded_NW = np.empty_like(as_pixels(expanded_BWHW))
        loops.activation_gradient(
            as_pixels(expanded_BWHW),
            *first,
            ctx.is_relu,
            as_pixels(to_active_BWHW),
            _NO_GATE,
            _NO_GATE,
            to_expanded_NW,
        )
        gradient_NW = torch.from_numpy(to_expanded_NW)
        if trains:
            to_weights["expansion_MI"] = gradient_NW.t() @ _pixels(features_BIHW)
        to_features_BIHW = None
        if ctx.needs_input_grad[0]:
            to_features_BIHW = _from_pixels(gradient_NW @ weights.expansion_MI, features_BIHW)
        padded = [
            _pad_to(to_weights.get(name), tensor)
            for name, tensor in zip(MBConvWeights._fields, tensors, strict=True)
        ]
        return to_features_BIHW, None, None, None, *padded


_NO_GATE = np.empty((0, 0), np.float32)


class _Gate:
    """Squeeze-and-excitation: the gates of a batch, and their gradient."""

    def __init__(self, weights: MBConvWeights, means_BW: Tensor, is_relu: bool) -> None:
        assert weights.se_reduce_MR is not None
        assert weights.se_expand_MR is not None
        assert weights.se_reduce_bias_R is not None
        assert weights.se_expand_bias_M is not None
        self.is_relu = is_relu
        self.means_BW = means_BW
        self.squeezed_BR = torch.addmm(weights.se_reduce_bias_R, means_BW, weights.se_reduce_MR)
        self.reduced_BR = F.relu(self.squeezed_BR) if is_relu else F.silu(self.squeezed_BR)
        self.gates_BW = torch.addmm(
            weights.se_expand_bias_M, self.reduced_BR, weights.se_expand_MR.t()
        ).sigmoid_()

    def backward(
        self, weights: MBConvWeights, to_gates_BW: Tensor, to_weights: dict[str, Tensor], trains: bool
    ) -> Tensor:
        """Returns the gradient of the means; adds those of the weights to `to_weights`."""
        assert weights.se_reduce_MR is not None
        assert weights.se_expand_MR is not None
        to_logits_BW = torch.ops.aten.sigmoid_backward(to_gates_BW, self.gates_BW)
        to_reduced_BR = to_logits_BW @ weights.se_expand_MR
        to_squeezed_BR = (
            torch.ops.aten.threshold_backward(to_reduced_BR, self.squeezed_BR, 0)
            if self.is_relu
            else torch.ops.aten.silu_backward(to_reduced_BR, self.squeezed_BR)
        )
        if trains:
            to_weights["se_expand_MR"] = to_logits_BW.t() @ self.reduced_BR
            to_weights["se_expand_bias_M"] = to_logits_BW.sum(0)
            to_weights["se_reduce_MR"] = self.means_BW.t() @ to_squeezed_BR
            to_weights["se_reduce_bias_R"] = to_squeezed_BR.sum(0)
        to_means_BW: Tensor = to_squeezed_BR @ weights.se_reduce_MR.t()
        return to_means_BW


def _active(tensors: Sequence[Any], width: int) -> MBConvWeights:
    """The active channels of each weight; the reduction's bias has none to leave out."""
    return MBConvWeights(
        *(
            tensor if tensor is None or name == "se_reduce_bias_R" else tensor.detach()[:width]
            for name, tensor in zip(MBConvWeights._fields, tensors, strict=True)
        )
    )


def _pad_to(gradient: Tensor | None, weight: Tensor | None) -> Tensor | None:
    """A gradient of the active channels as one of all channels, zero for the others."""
    if gradient is None or weight is None or gradient.shape == weight.shape:
        return gradient
    padded = torch.zeros_like(weight)
    padded[: len(gradient)] = gradient
    return padded


def _pixels(features_BCHW: Tensor) -> Tensor:
    return features_BCHW.permute(0, 2, 3, 1).reshape(-1, features_BCHW.shape[1])


def _multiply_pixels(features_BIHW: Tensor, weight_IO: Tensor) -> Tensor:
    return _from_pixels(_pixels(features_BIHW) @ weight_IO, features_BIHW)


def _from_pixels(pixels_NC: Tensor, like_BCHW: Tensor) -> Tensor:
    """Pixels as channels-last features with the batch and the space of `like_BCHW`."""
    batch, _, height, width = like_BCHW.shape
    return pixels_NC.view(batch, height, width, -1).permute(0, 3, 1, 2)
