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
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from nas.supernet.compiled import candidate_loops as loops

Floats = NDArray[np.float32]

_FOLD_RATIO = 8
"""Pixels times this must reach the square of the input channels."""

_CHUNK_BYTES = 2**20
"""Mid channels of a chunk; with smaller chunks the cost of each call shows."""

_MAX_RECOMPUTED_CHANNELS = 48
"""Expanding up to this many input channels twice costs less than the memory to keep the result."""


class Chunk(NamedTuple):
    """Images that are processed together: a slice of the batch, its pixels, and images, height and width."""

    images: slice
    pixels: slice
    batch_and_space: tuple[int, int, int]


class LayerInput:
    """The input of a layer, and what the folded expansions of its candidates share.

    Attributes:
        centered_NI: the input minus its mean.
        covariance_II: of the input's channels over all pixels (biased).
    """

    def __init__(self, features_NI: Tensor, batch_and_space: tuple[int, int, int]) -> None:
        self.features_NI: Floats = features_NI.numpy()
        self.batch_and_space = batch_and_space
        num_pixels, num_channels = features_NI.shape
        self.is_folded = _FOLD_RATIO * num_pixels >= num_channels**2
        if self.is_folded:
            centered_NI = features_NI - features_NI.mean(0)
            self.centered_NI: Floats = centered_NI.numpy()
            self.covariance_II: Floats = (centered_NI.t() @ centered_NI / num_pixels).numpy()

        self._chunks: dict[int, list[Chunk]] = {}

    def chunks(self, width: int) -> list[Chunk]:
        """The images that are processed together; candidates of the same width share them."""
        if width not in self._chunks:
            batch, height, image_width = self.batch_and_space
            image_bytes = 4 * width * height * image_width
            size = max(_CHUNK_BYTES // image_bytes, 1) if self.is_folded else batch
            self._chunks[width] = [
                _make_chunk(first, min(first + size, batch), height, image_width)
                for first in range(0, batch, size)
            ]
        return self._chunks[width]


def _make_chunk(first: int, last: int, height: int, width: int) -> Chunk:
    pixels = slice(first * height * width, last * height * width)
    return Chunk(slice(first, last), pixels, (last - first, height, width))


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
        kept_nW = self._kept.get(chunk.images.start)
        if kept_nW is not None:
            return kept_nW
        normal_nW: Floats = loops.expand(
            self._input.centered_NI[chunk.pixels], self._normalizing_WI
        )
        if self._keeps:
            self._kept[chunk.images.start] = normal_nW
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
        self._kept.pop(chunk.images.start, None)
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
