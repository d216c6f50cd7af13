"""The weights of a candidate operator's active channels, and their gradients, as compiled loops take them.

Shapes: I input channels, W active mid channels, P output channels, K kernel size.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nas.supernet.compiled.depthwise_convolution import Floats
from nas.supernet.mixed_block import MBConvWeights


class ActiveWeights(NamedTuple):
    """Weights, or their gradients; views. Empty if there are none.

    Attributes:
        squeeze: reduce_WR, reduce_bias_R, expand_WR and expand_bias_W.
    """

    expansion_WI: Floats
    depthwise_W1KK: Tensor
    projection_WP: Floats
    squeeze: tuple[Floats, ...]


_NO_SQUEEZE = tuple(np.empty(shape, np.float32) for shape in ((0, 0), 0, (0, 0), 0))
FROZEN = ActiveWeights(
    np.empty((0, 0), np.float32),
    torch.empty(0, 1, 0, 0, dtype=torch.float32, device="cpu"),
    np.empty((0, 0), np.float32),
    _NO_SQUEEZE,
)
"""Gradients of frozen weights."""


def _first(weights: Sequence[Tensor | None], width: int) -> ActiveWeights:
    """Those of the first channels."""
    expansion_WI, depthwise_W1KK, projection_WP, *squeeze = (
        tensor.detach().numpy() for tensor in weights if tensor is not None
    )
    if squeeze:
        reduce_WR, bias_R, expand_WR, bias_W = squeeze
        squeeze = [reduce_WR[:width], bias_R, expand_WR[:width], bias_W[:width]]
    return ActiveWeights(
        expansion_WI[:width],
        torch.from_numpy(depthwise_W1KK[:width]),
        projection_WP[:width],
        tuple(squeeze) or _NO_SQUEEZE,
    )


class WeightViews:
    """Active weights of candidates: making the views takes as long as a small kernel, so they are kept."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[list[int], ActiveWeights]] = {}

    def first(self, weights: MBConvWeights, width: int) -> ActiveWeights:
        """The first channels of weights at the maximum width; made again if these or the width have changed.

        What is kept holds its memory, so that no other weights can be there.
        """
        places = [width, *(tensor.data_ptr() for tensor in weights if tensor is not None)]
        kept = self._kept.get(places[1])
        if kept is None or kept[0] != places:
            kept = self._kept[places[1]] = places, _first(weights, width)
        return kept[1]


class WeightGradients:
    """Memory for the gradients of a candidate's weights; those of inactive channels are 0.

    Attributes:
        tensors: at the maximum width.
        active: of the active channels; the depthwise one is 0 at first.
    """

    def __init__(self, weights: MBConvWeights, width: int) -> None:
        self.tensors = [None if tensor is None else torch.empty_like(tensor) for tensor in weights]
        self.active = _first(self.tensors, width)
        for name, tensor in zip(weights._fields, self.tensors, strict=True):
            if tensor is not None and name != "se_reduce_bias_R":
                tensor.numpy()[width:].fill(0)
        self.active.depthwise_W1KK.zero_()
