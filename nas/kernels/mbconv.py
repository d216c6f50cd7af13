"""A candidate operator up to its last batch norm: forward, and backward by hand.

Shapes: B batch, I input channels, W active mid channels, R reduced channels of
squeeze-and-excitation, P output channels, H X space (input), Y Z space (output), N pixels of the batch
at the input's resolution, M at the output's; b images and n pixels of a chunk of the batch.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from nas.kernels import normalization_loops as loops
from nas.kernels.compilation import BN_EPS, as_features, as_pixels
from nas.kernels.depthwise import depthwise_conv, depthwise_input_gradient, depthwise_weight_gradient
from nas.kernels.expansion import FoldedExpansion, LayerInput, PlainExpansion
from nas.ops import Activation


class MBConvWeights(NamedTuple):
    """Weights of the active channels; without the `se_` ones there is no squeeze-and-excitation."""

    expansion_WI: Tensor
    depthwise_W1KK: Tensor
    projection_WP: Tensor
    se_reduce_WR: Tensor | None = None
    se_reduce_bias_R: Tensor | None = None
    se_expand_WR: Tensor | None = None
    se_expand_bias_W: Tensor | None = None


@dataclass(frozen=True)
class MBConvShape:
    """What the blocks of one layer have in common."""

    stride: int
    activation: Activation
    keeps_shape: bool


def compose_mbconv(features_BIHX: Tensor, weights: MBConvWeights, shape: MBConvShape) -> Tensor:
    """The block made of torch's own functions, for any device and type."""
    activate = F.relu if shape.activation == "relu" else F.silu
    mid = F.conv2d(features_BIHX, weights.expansion_WI[:, :, None, None])
    mid = activate(F.batch_norm(mid, None, None, training=True, eps=BN_EPS))
    padding = weights.depthwise_W1KK.shape[-1] // 2
    mid = F.conv2d(mid, weights.depthwise_W1KK, None, shape.stride, padding, groups=mid.shape[1])
    mid = activate(F.batch_norm(mid, None, None, training=True, eps=BN_EPS))
    if weights.se_reduce_WR is not None:
        assert weights.se_expand_WR is not None
        reduced_BR = activate(F.linear(mid.mean((2, 3)), weights.se_reduce_WR.t(), weights.se_reduce_bias_R))
        gates_BW = F.linear(reduced_BR, weights.se_expand_WR, weights.se_expand_bias_W)
        mid = mid * torch.sigmoid(gates_BW)[:, :, None, None]
    return F.conv2d(mid, weights.projection_WP.t()[:, :, None, None])


class CompiledMBConv:
    """One run of the block by compiled loops; keeps what its gradient needs.

    Attributes:
        out_MP: the block's output, before the last batch norm.
    """

    def __init__(
        self, layer_input: LayerInput, weights: MBConvWeights, shape: MBConvShape, *, trains: bool
    ) -> None:
        self._input, self._weights, self._trains = layer_input, weights, trains
        self._stride, self._is_relu = shape.stride, shape.activation == "relu"
        expansion = FoldedExpansion if layer_input.is_folded else PlainExpansion
        self._expansion = expansion(layer_input, weights.expansion_WI, self._is_relu, trains=trains)
        self._width = len(weights.expansion_WI)
        batch, height, width = layer_input.batch_and_space
        self._out_space = (batch, -(-height // shape.stride), -(-width // shape.stride))
        self._filtered_MW = self._filter()
        self._statistics = loops.mean_and_scale(self._filtered_MW.numpy(), BN_EPS)
        gated_MW = torch.empty_like(self._filtered_MW)
        loops.normalize_and_activate(
            self._filtered_MW.numpy(), *self._statistics, self._is_relu, gated_MW.numpy()
        )
        self._gate = None
        if weights.se_reduce_WR is not None:
            means_BW = loops.mean_images(gated_MW.numpy(), layer_input.batch_and_space[0])
            self._gate = _Gate(weights, means_BW, self._is_relu)
            loops.multiply_images(gated_MW.numpy(), self._gate.gates_BW.numpy())
        self.out_MP = gated_MW @ weights.projection_WP
        self._gated_MW = gated_MW if trains else None

    def backward(self, to_out_MP: Tensor, to_features_NI: Tensor) -> dict[str, Tensor]:
        """Adds to the gradient of the input, in place; returns those of trained weights by name."""
        weights = self._weights
        to_weights: dict[str, Tensor] = {}
        to_filtered_MW = to_out_MP @ weights.projection_WP.t()
        factors_BW, offsets_BW = self._gate_gradients(to_filtered_MW, to_weights)
        loops.activation_gradient(
            self._filtered_MW.numpy(),
            *self._statistics,
            self._is_relu,
            to_filtered_MW.numpy(),
            factors_BW,
            offsets_BW,
        )
        to_depthwise_W1KK = self._filter_backward(to_filtered_MW, to_features_NI)
        to_expansion_WI = self._expansion.finish(to_features_NI)
        if self._gated_MW is not None:
            assert to_expansion_WI is not None
            to_weights["projection_WP"] = self._gated_MW.t() @ to_out_MP
            to_weights["depthwise_W1KK"] = to_depthwise_W1KK
            to_weights["expansion_WI"] = to_expansion_WI
        return to_weights

    def _filter(self) -> Tensor:
        """The depthwise convolution's output, (M, W), made of chunks of the batch."""
        batch, *out_space = self._out_space
        filtered_BMW = torch.empty(batch, out_space[0] * out_space[1], self._width)
        for images in self._input.chunks(self._width):
            active_nW = self._expansion.activate(self._expansion.expand(images))
            active_bWHX = as_features(active_nW, self._input.space_of(images))
            filtered_bWYZ = depthwise_conv(active_bWHX, self._weights.depthwise_W1KK, self._stride)
            filtered_BMW[images] = filtered_bWYZ.permute(0, 2, 3, 1).flatten(1, 2)
        return filtered_BMW.flatten(0, 1)

    def _filter_backward(self, to_filtered_MW: Tensor, to_features_NI: Tensor) -> Tensor:
        """Adds to the gradient of the input, in place; returns that of the depthwise weight."""
        weight_W1KK, stride = self._weights.depthwise_W1KK, self._stride
        to_filtered_BWYZ = as_features(to_filtered_MW, self._out_space)
        to_weight_W1KK = torch.zeros_like(weight_W1KK)
        for images in self._input.chunks(self._width):
            space = self._input.space_of(images)
            expanded_nW = self._expansion.expand(images)
            to_filtered_bWYZ = to_filtered_BWYZ[images]
            if self._trains:
                active_bWHX = as_features(self._expansion.activate(expanded_nW), space)
                to_weight_W1KK += depthwise_weight_gradient(
                    active_bWHX, to_filtered_bWYZ, weight_W1KK, stride
                )
            to_active_bWHX = depthwise_input_gradient(
                to_filtered_bWYZ,
                weight_W1KK,
                stride,
                torch.Size((space[0], self._width, *space[1:])),
            )
            to_active_nW = as_pixels(to_active_bWHX)
            self._expansion.backward(images, expanded_nW, to_active_nW, to_features_NI)
        return to_weight_W1KK

    def _gate_gradients(self, to_gated_MW: Tensor, to_weights: dict[str, Tensor]) -> tuple[Any, Any]:
        """The gradient of an activated pixel is factor * to_gated + offset; factors and offsets_BW."""
        if self._gate is None:
            return loops.NO_GATE
        num_images = self._input.batch_and_space[0]
        to_gates_BW = loops.gate_gradient(
            self._filtered_MW.numpy(), *self._statistics, self._is_relu, to_gated_MW.numpy(), num_images
        )
        to_means_BW = self._gate.backward(
            self._weights, torch.from_numpy(to_gates_BW), to_weights if self._trains else None
        )
        num_pixels = len(to_gated_MW) // num_images
        return self._gate.gates_BW.numpy(), (to_means_BW / num_pixels).numpy()


class _Gate:
    """Squeeze-and-excitation: the gates of a batch, and their gradient."""

    def __init__(self, weights: MBConvWeights, means_BW: Any, is_relu: bool) -> None:
        assert weights.se_reduce_WR is not None
        assert weights.se_expand_WR is not None
        assert weights.se_reduce_bias_R is not None
        assert weights.se_expand_bias_W is not None
        self._is_relu = is_relu
        self._means_BW = torch.from_numpy(means_BW)
        self._squeezed_BR = torch.addmm(weights.se_reduce_bias_R, self._means_BW, weights.se_reduce_WR)
        self._reduced_BR = F.relu(self._squeezed_BR) if is_relu else F.silu(self._squeezed_BR)
        logits_BW = torch.addmm(weights.se_expand_bias_W, self._reduced_BR, weights.se_expand_WR.t())
        self.gates_BW = logits_BW.sigmoid_()

    def backward(
        self, weights: MBConvWeights, to_gates_BW: Tensor, to_weights: dict[str, Tensor] | None
    ) -> Tensor:
        """Returns the gradient of the means; adds those of the weights to `to_weights`."""
        assert weights.se_reduce_WR is not None
        assert weights.se_expand_WR is not None
        to_logits_BW = torch.ops.aten.sigmoid_backward(to_gates_BW, self.gates_BW)
        to_reduced_BR = to_logits_BW @ weights.se_expand_WR
        to_squeezed_BR = (
            torch.ops.aten.threshold_backward(to_reduced_BR, self._squeezed_BR, 0)
            if self._is_relu
            else torch.ops.aten.silu_backward(to_reduced_BR, self._squeezed_BR)
        )
        if to_weights is not None:
            to_weights["se_expand_WR"] = to_logits_BW.t() @ self._reduced_BR
            to_weights["se_expand_bias_W"] = to_logits_BW.sum(0)
            to_weights["se_reduce_WR"] = self._means_BW.t() @ to_squeezed_BR
            to_weights["se_reduce_bias_R"] = to_squeezed_BR.sum(0)
        to_means_BW: Tensor = to_squeezed_BR @ weights.se_reduce_WR.t()
        return to_means_BW
