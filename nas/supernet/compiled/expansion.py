"""The expansion of a candidate operator, its batch norm and its activation; forward and backward.

Shapes: I input channels, W active mid channels, N pixels of the batch, n pixels of a chunk of it.

Batch norm behind a linear map does not need the map's output: the mean of W x is W times the mean of
x, and its variances are those of the quadratic form W cov(x) W'. Where pixels outnumber input channels,
normalization is therefore folded into the weights, and the batch is processed in chunks of a few images.
Their mid channels are never kept for the backward pass, and they stay in the cache between the expansion
and the depthwise convolution. This pays as long as the quadratic form costs less than passes over all
pixels; other layers are small and are processed as a whole.
"""

from abc import ABC, abstractmethod
from functools import cache
from typing import NamedTuple

import numpy as np
import torch

from nas.supernet.compiled import candidate_loops as loops
from nas.supernet.compiled.depthwise_convolution import BatchAndSpace, Floats, after_stride

_FOLD_RATIO = 8
"""Pixels times this must reach the square of the input channels."""

_CHUNK_BYTES = 2**20
"""Mid channels of a chunk; with smaller chunks the cost of each call shows."""

_MAX_RECOMPUTED_CHANNELS = 48
"""Expanding up to this many input channels twice costs less than the memory to keep the result."""


class Chunk(NamedTuple):
    """Images that are processed together.

    Attributes:
        pixels: their rows at the input's resolution.
        out_pixels: their rows at the output's.
        batch_and_space: how many images, height and width.
    """

    pixels: slice
    out_pixels: slice
    batch_and_space: BatchAndSpace


@cache
def _make_chunks(batch_and_space: BatchAndSpace, stride: int, size: int) -> list[Chunk]:
    """A batch in chunks of so many images."""
    batch, height, width = batch_and_space
    _, out_height, out_width = after_stride(batch_and_space, stride)
    return [
        Chunk(
            slice(first * height * width, last * height * width),
            slice(first * out_height * out_width, last * out_height * out_width),
            (last - first, height, width),
        )
        for first in range(0, batch, size)
        for last in [min(first + size, batch)]
    ]


class LayerInput:
    """The input of a layer, and what the folded expansions of its candidates share.

    Attributes:
        centered_NI: the input minus its mean.
        covariance_II: of the input's channels over all pixels (biased).
    """

    def __init__(self, features_NI: Floats, batch_and_space: BatchAndSpace) -> None:
        self.features_NI = features_NI
        self.batch_and_space = batch_and_space
        num_pixels, num_channels = features_NI.shape
        self.is_folded = _FOLD_RATIO * num_pixels >= num_channels**2
        if self.is_folded:
            tensor_NI = torch.from_numpy(features_NI)
            centered_NI = tensor_NI - tensor_NI.mean(0)
            self.centered_NI: Floats = centered_NI.numpy()
            self.covariance_II: Floats = (centered_NI.t() @ centered_NI / num_pixels).numpy()

    def chunks(self, width: int, stride: int) -> list[Chunk]:
        """The images that are processed together."""
        batch, height, image_width = self.batch_and_space
        size = max(_CHUNK_BYTES // (4 * width * height * image_width), 1) if self.is_folded else batch
        return _make_chunks(self.batch_and_space, stride, size)


class Expansion(ABC):
    """The expansion of one candidate in one run, and what its backward pass needs.

    Backward goes in three parts: `start_backward`, `backward` of each chunk, `finish_backward`.
    """

    @abstractmethod
    def expand(self, chunk: Chunk) -> Floats:
        """Mid channels of a chunk, (n, W)."""

    @abstractmethod
    def activate(self, expanded_nW: Floats) -> Floats:
        """Active mid channels, given what `expand` returned."""

    def start_backward(self, to_expansion_WI: Floats) -> None:
        """Takes the array for the gradient of the weights; it has no rows where they are frozen."""
        self._to_expansion_WI = to_expansion_WI

    @abstractmethod
    def backward(
        self, chunk: Chunk, expanded_nW: Floats, to_active_nW: Floats, to_features_NI: Floats
    ) -> None:
        """Adds a chunk's part of the input's gradient; overwrites `to_active_nW`."""

    def finish_backward(self, to_features_NI: Floats) -> None:
        """Adds what depends on all chunks."""
        return


class FoldedExpansion(Expansion):
    """In chunks, normalized by its weights; keeps mid channels only if they are costly."""

    def __init__(self, layer_input: LayerInput, expansion_WI: Floats, is_relu: bool) -> None:
        self._input, self._is_relu = layer_input, is_relu
        self._spread_WI, self._scale_W, self._normalizing_WI = loops.fold(
            expansion_WI, layer_input.covariance_II
        )
        self._keeps = expansion_WI.shape[1] > _MAX_RECOMPUTED_CHANNELS
        self._kept: dict[int, Floats] = {}

    def expand(self, chunk: Chunk) -> Floats:
        """See `Expansion`."""
        kept_nW = self._kept.get(chunk.pixels.start)
        if kept_nW is not None:
            return kept_nW
        normal_nW: Floats = loops.expand(self._input.centered_NI[chunk.pixels], self._normalizing_WI)
        if self._keeps:
            self._kept[chunk.pixels.start] = normal_nW
        return normal_nW

    def activate(self, expanded_nW: Floats) -> Floats:
        """See `Expansion`."""
        active_nW: Floats = loops.activate(expanded_nW, self._is_relu)
        return active_nW

    def start_backward(self, to_expansion_WI: Floats) -> None:
        """See `Expansion`."""
        super().start_backward(to_expansion_WI)
        to_expansion_WI[:] = 0
        width = len(self._scale_W)
        self._sum_W, self._product_W = np.zeros(width), np.zeros(width)

    def backward(
        self, chunk: Chunk, expanded_nW: Floats, to_active_nW: Floats, to_features_NI: Floats
    ) -> None:
        """See `Expansion`."""
        self._kept.pop(chunk.pixels.start, None)
        loops.folded_backward(
            expanded_nW,
            self._is_relu,
            to_active_nW,
            self._normalizing_WI,
            self._input.centered_NI[chunk.pixels],
            self._sum_W,
            self._product_W,
            to_features_NI[chunk.pixels],
            self._to_expansion_WI,
        )

    def finish_backward(self, to_features_NI: Floats) -> None:
        """See `Expansion`."""
        loops.finish_folded_backward(
            self._sum_W,
            self._product_W,
            self._normalizing_WI,
            self._spread_WI,
            self._scale_W,
            self._input.centered_NI,
            to_features_NI,
            self._to_expansion_WI,
        )


class WholeExpansion(Expansion):
    """The whole batch at once; keeps the result and its statistics."""

    def __init__(self, layer_input: LayerInput, expansion_WI: Floats, is_relu: bool) -> None:
        self._input, self._is_relu, self._expansion_WI = layer_input, is_relu, expansion_WI
        self._expanded_NW, mean_W, scale_W = loops.expand_and_measure(layer_input.features_NI, expansion_WI)
        self._statistics = mean_W, scale_W

    def expand(self, chunk: Chunk) -> Floats:
        """See `Expansion`."""
        expanded_NW: Floats = self._expanded_NW
        return expanded_NW

    def activate(self, expanded_nW: Floats) -> Floats:
        """See `Expansion`."""
        active_nW: Floats = loops.normalize_and_activate(expanded_nW, *self._statistics, self._is_relu)
        return active_nW

    def backward(
        self, chunk: Chunk, expanded_nW: Floats, to_active_nW: Floats, to_features_NI: Floats
    ) -> None:
        """See `Expansion`."""
        loops.whole_backward(
            expanded_nW,
            *self._statistics,
            self._is_relu,
            to_active_nW,
            self._expansion_WI,
            self._input.features_NI,
            to_features_NI,
            self._to_expansion_WI,
        )
