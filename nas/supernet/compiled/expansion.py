"""The expansion of a candidate operator, its batch norm and its activation; forward and backward.

Shapes: I input channels, W active mid channels, N pixels of the batch, n pixels of a chunk of it.

Batch norm behind a linear map needs no look at the map's output: the mean of W x is W times the mean
of x, its variances are those of the quadratic form W cov(x) W'. So where pixels outnumber the input
channels, normalisation is folded into the weights, and the batch is processed in chunks of a few
images, whose mid channels never reach main memory between the expansion and the depthwise
convolution, nor are they kept for the backward pass. That pays as long as the quadratic form costs
less than passes over all pixels; other layers are small, and are processed whole.
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from nas.supernet.compiled import mbconv_loops as loops

Floats = NDArray[np.float32]

_FOLD_RATIO = 8
"""Pixels times this must reach the square of the input channels."""

_CHUNK_BYTES = 2**20
"""Mid channels of a chunk; with less, the cost of each call is felt."""

_MAX_RECOMPUTED_CHANNELS = 48
"""Expanding up to so many input channels a second time costs less than memory to keep the result."""


class LayerInput:
    """The input of a layer, and what the folded expansions of its candidates share.

    Attributes:
        centred_NI: the input less its mean.
        covariance_II: of the input's channels over all pixels (biased).
    """

    def __init__(self, features_NI: Tensor, batch_and_space: tuple[int, int, int]) -> None:
        self.features_NI: Floats = features_NI.numpy()
        self.batch_and_space = batch_and_space
        num_pixels, num_channels = features_NI.shape
        self.is_folded = _FOLD_RATIO * num_pixels >= num_channels**2
        if self.is_folded:
            centred_NI = features_NI - features_NI.mean(0)
            self.centred_NI: Floats = centred_NI.numpy()
            self.covariance_II: Floats = (centred_NI.t() @ centred_NI / num_pixels).numpy()

    def chunks(self, width: int) -> list[slice]:
        """Slices of images that are processed at a time."""
        batch, height, image_width = self.batch_and_space
        image_bytes = 4 * width * height * image_width
        size = max(_CHUNK_BYTES // image_bytes, 1) if self.is_folded else batch
        return [slice(first, min(first + size, batch)) for first in range(0, batch, size)]

    def space_of(self, images: slice) -> tuple[int, int, int]:
        """Images, height and width of a slice."""
        return (images.stop - images.start, *self.batch_and_space[1:])

    def pixels(self, images: slice) -> slice:
        """The rows of an image slice."""
        _, height, width = self.batch_and_space
        return slice(images.start * height * width, images.stop * height * width)


class FoldedExpansion:
    """One run, normalised by the weights; keeps the normal mid channels only if they are costly."""

    def __init__(self, layer_input: LayerInput, expansion_WI: Floats, is_relu: bool) -> None:
        self._input, self._is_relu = layer_input, is_relu
        self._spread_WI, self._scale_W, self._normalizing_WI = loops.fold(
            expansion_WI, layer_input.covariance_II
        )
        self._keeps = expansion_WI.shape[1] > _MAX_RECOMPUTED_CHANNELS
        self._kept: dict[int, Floats] = {}

    def expand(self, images: slice) -> Floats:
        """Normal mid channels of a chunk, (n, W)."""
        kept_nW = self._kept.get(images.start)
        if kept_nW is not None:
            return kept_nW
        normal_nW: Floats = loops.expand_folded(
            self._input.centred_NI[self._input.pixels(images)], self._normalizing_WI
        )
        if self._keeps:
            self._kept[images.start] = normal_nW
        return normal_nW

    def activate(self, normal_nW: Floats) -> Floats:
        """Active mid channels of what `expand` returned."""
        active_nW: Floats = loops.activate(normal_nW, self._is_relu)
        return active_nW

    def start_backward(self, to_expansion_WI: Floats) -> None:
        """To be called before the chunks' `backward`.

        Args:
            to_expansion_WI: is filled with the gradient; without rows where weights are frozen.
        """
        width = len(self._scale_W)
        self._sum_W, self._product_W = np.zeros(width), np.zeros(width)
        self._to_normalizing_WI = to_expansion_WI
        to_expansion_WI[:] = 0

    def backward(
        self, images: slice, normal_nW: Floats, to_active_nW: Floats, to_features_NI: Floats
    ) -> None:
        """Adds a chunk's part of the input's gradient; overwrites `to_active_nW`."""
        self._kept.pop(images.start, None)
        pixels = self._input.pixels(images)
        loops.folded_backward(
            normal_nW,
            self._is_relu,
            to_active_nW,
            self._normalizing_WI,
            self._input.centred_NI[pixels],
            self._sum_W,
            self._product_W,
            to_features_NI[pixels],
            self._to_normalizing_WI,
        )

    def finish_backward(self, to_features_NI: Floats) -> None:
        """To be called after the chunks' `backward`."""
        loops.finish_folded_backward(
            self._sum_W,
            self._product_W,
            self._normalizing_WI,
            self._spread_WI,
            self._scale_W,
            self._input.centred_NI,
            to_features_NI,
            self._to_normalizing_WI,
        )


class PlainExpansion:
    """One run over the whole batch, with the interface of `FoldedExpansion`; keeps what it expands."""

    def __init__(self, layer_input: LayerInput, expansion_WI: Floats, is_relu: bool) -> None:
        self._input, self._is_relu, self._expansion_WI = layer_input, is_relu, expansion_WI
        self._expanded_NW, *self._statistics = loops.expand_plain(layer_input.features_NI, expansion_WI)

    def expand(self, images: slice) -> Floats:
        """Mid channels of the batch, not normalised, (N, W)."""
        expanded_NW: Floats = self._expanded_NW
        return expanded_NW

    def activate(self, expanded_NW: Floats) -> Floats:
        """Active mid channels of what `expand` returned."""
        active_NW: Floats = loops.activate_plain(expanded_NW, *self._statistics, self._is_relu)
        return active_NW

    def start_backward(self, to_expansion_WI: Floats) -> None:
        """See `FoldedExpansion`."""
        self._to_expansion_WI = to_expansion_WI

    def backward(
        self, images: slice, expanded_NW: Floats, to_active_NW: Floats, to_features_NI: Floats
    ) -> None:
        """Adds the input's gradient; overwrites `to_active_NW`."""
        loops.plain_backward(
            expanded_NW,
            *self._statistics,
            self._is_relu,
            to_active_NW,
            self._expansion_WI,
            self._input.features_NI,
            to_features_NI,
            self._to_expansion_WI,
        )

    def finish_backward(self, to_features_NI: Floats) -> None:
        """See `FoldedExpansion`."""
