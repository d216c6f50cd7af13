"""A candidate operator up to its last batch norm: forward, and backward by hand.

Shapes: B batch, I input channels, W active mid channels, R reduced channels of
squeeze-and-excitation, P output channels, H X space (input), N pixels of the batch at the input's
resolution, M at the output's.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nas.kernels import normalization_loops as loops
from nas.kernels.compilation import BN_EPS, as_features, as_pixels
from nas.kernels.depthwise import depthwise_conv, depthwise_input_gradient, depthwise_weight_gradient
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

    That is the inputs of the two batch norms and, for trained weights, what they multiply.

    Attributes:
        out_MP: the block's output, before the last batch norm.
    """

    def __init__(
        self,
        features_NI: Tensor,
        batch_and_space: tuple[int, int, int],
        weights: MBConvWeights,
        shape: MBConvShape,
        *,
        trains: bool,
    ) -> None:
        self._features_NI, self._batch_and_space = features_NI, batch_and_space
        self._weights, self._stride, self._is_relu = weights, shape.stride, shape.activation == "relu"
        self._expanded_NW = (features_NI @ weights.expansion_WI.t()).numpy()
        active_NW = np.empty_like(self._expanded_NW)
        self._first = loops.normalize_and_activate(self._expanded_NW, BN_EPS, self._is_relu, active_NW)
        active_BWHX = as_features(torch.from_numpy(active_NW), batch_and_space)
        filtered_BWYZ = depthwise_conv(active_BWHX, weights.depthwise_W1KK, shape.stride)
        self._out_space = (batch_and_space[0], *filtered_BWYZ.shape[2:])
        self._filtered_MW = as_pixels(filtered_BWYZ)
        gated_MW = np.empty_like(self._filtered_MW)
        self._second = loops.normalize_and_activate(self._filtered_MW, BN_EPS, self._is_relu, gated_MW)
        self._gate = None
        if weights.se_reduce_WR is not None:
            self._gate = _Gate(weights, loops.mean_images(gated_MW, batch_and_space[0]), self._is_relu)
            loops.multiply_images(gated_MW, self._gate.gates_BW.numpy())
        gated = torch.from_numpy(gated_MW)
        self.out_MP = gated @ weights.projection_WP
        self._kept = (active_BWHX, gated) if trains else None

    def backward(
        self, to_out_MP: Tensor, to_features_NI: Tensor | None
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """The gradient of the input, added to `to_features_NI`, and those of trained weights by name.

        Args:
            to_features_NI: sum so far, changed in place; None for none yet.
        """
        weights = self._weights
        to_weights: dict[str, Tensor] = {}
        to_gated_MW = to_out_MP @ weights.projection_WP.t()
        factors_BW, offsets_BW = self._gate_gradients(to_gated_MW, to_weights)
        to_filtered_MW = np.empty_like(self._filtered_MW)
        loops.activation_gradient(
            self._filtered_MW,
            *self._second,
            self._is_relu,
            to_gated_MW.numpy(),
            factors_BW,
            offsets_BW,
            to_filtered_MW,
        )
        to_filtered_BWYZ = as_features(torch.from_numpy(to_filtered_MW), self._out_space)
        batch, height, width = self._batch_and_space
        to_active_BWHX = depthwise_input_gradient(
            to_filtered_BWYZ,
            weights.depthwise_W1KK,
            self._stride,
            torch.Size((batch, len(weights.depthwise_W1KK), height, width)),
        )
        to_expanded_NW = np.empty_like(self._expanded_NW)
        loops.activation_gradient(
            self._expanded_NW,
            *self._first,
            self._is_relu,
            as_pixels(to_active_BWHX),
            _NONE,
            _NONE,
            to_expanded_NW,
        )
        to_expanded = torch.from_numpy(to_expanded_NW)
        if self._kept is not None:
            active_BWHX, gated_MW = self._kept
            to_weights["projection_WP"] = gated_MW.t() @ to_out_MP
            to_weights["depthwise_W1KK"] = depthwise_weight_gradient(
                active_BWHX, to_filtered_BWYZ, weights.depthwise_W1KK, self._stride
            )
            to_weights["expansion_WI"] = to_expanded.t() @ self._features_NI
        if to_features_NI is None:
            return to_expanded @ weights.expansion_WI, to_weights
        return to_features_NI.addmm_(to_expanded, weights.expansion_WI), to_weights

    def _gate_gradients(self, to_gated_MW: Tensor, to_weights: dict[str, Tensor]) -> tuple[Any, Any]:
        """The gradient of an activated pixel is factor * to_gated + offset; factors and offsets_BW."""
        if self._gate is None:
            return _NONE, _NONE
        num_images = self._batch_and_space[0]
        to_gates_BW = loops.gate_gradient(
            self._filtered_MW, *self._second, self._is_relu, to_gated_MW.numpy(), num_images
        )
        to_means_BW = self._gate.backward(
            self._weights, torch.from_numpy(to_gates_BW), to_weights if self._kept else None
        )
        num_pixels = len(to_gated_MW) // num_images
        return self._gate.gates_BW.numpy(), (to_means_BW / num_pixels).numpy()


_NONE = np.empty((0, 0), np.float32)


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
