"""A layer of the supernet in plain torch: one candidate operator, or the weighted sum of several.

Shapes: B batch, I input channels, W active mid channels, R reduced channels of squeeze-and-excitation,
P output channels, H X space, K kernel size, O operators.

Source: TF-NAS, search space and operator level.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor, sigmoid
from torch.nn import functional as F

from nas.space.operators import Activation

BN_EPS = 1e-5


class MBConvWeights(NamedTuple):
    """Weights at some width W; without the `se_` ones there is no squeeze-and-excitation."""

    expansion_WI: Tensor
    depthwise_W1KK: Tensor
    projection_WP: Tensor
    se_reduce_WR: Tensor | None = None
    se_reduce_bias_R: Tensor | None = None
    se_expand_WR: Tensor | None = None
    se_expand_bias_W: Tensor | None = None

    def first(self, width: int) -> "MBConvWeights":
        """Those of the first channels, as views."""
        always = (self.expansion_WI[:width], self.depthwise_W1KK[:width], self.projection_WP[:width])
        if self.se_reduce_WR is None:
            return MBConvWeights(*always)
        assert self.se_expand_WR is not None
        assert self.se_expand_bias_W is not None
        return MBConvWeights(
            *always,
            self.se_reduce_WR[:width],
            self.se_reduce_bias_R,
            self.se_expand_WR[:width],
            self.se_expand_bias_W[:width],
        )


@dataclass(frozen=True)
class MBConvShape:
    """What the blocks of one layer have in common."""

    stride: int
    activation: Activation
    keeps_shape: bool


class BlockFunction(Protocol):
    """How a mixed block is computed: `mixed_block` here, or an implementation with the same result."""

    def __call__(
        self,
        features_BIHX: Tensor,
        candidates: Sequence[MBConvWeights],
        widths: Sequence[int],
        mix_weights_O: Tensor | None,
        shape: MBConvShape,
    ) -> Tensor:
        """See `mixed_block`."""
        ...


def mixed_block(
    features_BIHX: Tensor,
    candidates: Sequence[MBConvWeights],
    widths: Sequence[int],
    mix_weights_O: Tensor | None,
    shape: MBConvShape,
) -> Tensor:
    """Sum of weight * candidate, plus the input where the shape is kept.

    Batch norm uses the batch's statistics everywhere, without affine parameters. The input is
    added once: each candidate would add it, with weights that sum to 1.

    Args:
        features_BIHX: channels last; so is the result.
        candidates: weights of each candidate operator at its maximum width.
        widths: how many mid channels of each candidate, the first ones, are active.
        mix_weights_O: None for ones.
    """
    total_BPHX = features_BIHX if shape.keeps_shape else None
    for index, (weights, width) in enumerate(zip(candidates, widths, strict=True)):
        term_BPHX = mbconv(features_BIHX, weights.first(width), shape)
        if mix_weights_O is not None:
            term_BPHX = mix_weights_O[index] * term_BPHX
        # Term by term: stacking them would lose the channels-last layout.
        total_BPHX = term_BPHX if total_BPHX is None else total_BPHX + term_BPHX
    assert total_BPHX is not None
    return total_BPHX


def mbconv(features_BIHX: Tensor, weights: MBConvWeights, shape: MBConvShape) -> Tensor:
    """One candidate operator up to its last batch norm, without the residual.

    1x1 expansion, depthwise convolution, squeeze-and-excitation if there is one, linear 1x1 projection.
    """
    activate = F.relu if shape.activation == "relu" else F.silu
    mid = F.conv2d(features_BIHX, weights.expansion_WI[:, :, None, None])
    mid = activate(_normalize(mid))
    padding = weights.depthwise_W1KK.shape[-1] // 2
    mid = F.conv2d(mid, weights.depthwise_W1KK, None, shape.stride, padding, groups=mid.shape[1])
    mid = activate(_normalize(mid))
    if weights.se_reduce_WR is not None:
        assert weights.se_expand_WR is not None
        reduced_BR = activate(F.linear(mid.mean((2, 3)), weights.se_reduce_WR.t(), weights.se_reduce_bias_R))
        gates_BW = F.linear(reduced_BR, weights.se_expand_WR, weights.se_expand_bias_W)
        mid = mid * sigmoid(gates_BW)[:, :, None, None]
    return _normalize(F.conv2d(mid, weights.projection_WP.t()[:, :, None, None]))


def _normalize(features_BCHX: Tensor) -> Tensor:
    return F.batch_norm(features_BCHX, None, None, training=True, eps=BN_EPS)
