"""The expansion of a candidate operator, its batch norm and its activation; forward and backward.

Shapes: I input channels, W active mid channels, N pixels of the batch, n pixels of a chunk of it.

Batch norm behind a linear map needs no look at the map's output: the mean of W x is W times the mean
of x, its variances are those of the quadratic form W cov(x) W'. So where pixels outnumber the input
channels, normalisation is folded into the weights, and the batch is processed in chunks of a few
images, whose mid channels never reach main memory between the expansion and the depthwise
convolution, nor are they kept for the backward pass. That pays as long as the quadratic form costs
less than passes over all pixels; other layers are small, and are processed whole.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from nas.kernels import normalization_loops as loops
from nas.kernels.compilation import BN_EPS

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
        self.features_NI, self.batch_and_space = features_NI, batch_and_space
        num_pixels, num_channels = features_NI.shape
        self.is_folded = _FOLD_RATIO * num_pixels >= num_channels**2
        self._scratch: dict[str, Tensor] = {}
        if self.is_folded:
            self.centred_NI = features_NI - features_NI.mean(0)
            self.covariance_II = self.centred_NI.t() @ self.centred_NI / num_pixels

    def scratch(self, name: str, num_pixels: int, width: int) -> Tensor:
        """Memory that all chunks of all candidates use in turn; what was in it is lost."""
        size = num_pixels * width
        if len(self._scratch.get(name, ())) < size:
            self._scratch[name] = torch.empty(size)
        return self._scratch[name][:size].view(num_pixels, width)

    def free_scratch(self) -> None:
        """Lets the memory of `scratch` go, between the forward pass and the backward pass."""
        self._scratch.clear()

    def chunks(self, width: int) -> Iterator[slice]:
        """Slices of images that are processed at a time."""
        batch, height, image_width = self.batch_and_space
        image_bytes = 4 * width * height * image_width
        size = max(_CHUNK_BYTES // image_bytes, 1) if self.is_folded else batch
        return (slice(first, min(first + size, batch)) for first in range(0, batch, size))

    def space_of(self, images: slice) -> tuple[int, int, int]:
        """Images, height and width of a slice."""
        return (images.stop - images.start, *self.batch_and_space[1:])

    def pixels(self, images: slice) -> slice:
        """The rows of an image slice."""
        _, height, width = self.batch_and_space
        return slice(images.start * height * width, images.stop * height * width)


class FoldedExpansion:
    """One run, normalised by the weights; keeps the normal mid channels only if they are costly."""

    def __init__(self, layer_input: LayerInput, expansion_WI: Tensor, is_relu: bool, *, trains: bool) -> None:
        self._input, self._is_relu = layer_input, is_relu
        self._spread_WI = expansion_WI @ layer_input.covariance_II
        variance_W = (self._spread_WI * expansion_WI).sum(1)
        self._scale_W = (variance_W.clamp_(min=0) + BN_EPS).rsqrt()
        self._normalizing_WI = expansion_WI * self._scale_W[:, None]
        self._keeps = expansion_WI.shape[1] > _MAX_RECOMPUTED_CHANNELS
        self._kept: dict[int, Tensor] = {}
        width = len(expansion_WI)
        self._sums_W, self._products_W = np.zeros(width), np.zeros(width)
        self._to_normalizing_WI = torch.zeros_like(expansion_WI) if trains else None

    def expand(self, images: slice) -> Tensor:
        """Normal mid channels of a chunk, (n, W)."""
        if images.start in self._kept:
            return self._kept[images.start]
        centred_nI = self._input.centred_NI[self._input.pixels(images)]
        if self._keeps:
            self._kept[images.start] = centred_nI @ self._normalizing_WI.t()
            return self._kept[images.start]
        normal_nW = self._input.scratch("normal", len(centred_nI), len(self._normalizing_WI))
        return torch.mm(centred_nI, self._normalizing_WI.t(), out=normal_nW)

    def activate(self, normal_nW: Tensor) -> Tensor:
        """Active mid channels of what `expand` returned."""
        active_nW = self._input.scratch("active", *normal_nW.shape)
        loops.activate(normal_nW.numpy(), self._is_relu, active_nW.numpy())
        return active_nW

    def backward(
        self, images: slice, normal_nW: Tensor, to_active_nW: Tensor, to_features_NI: Tensor
    ) -> None:
        """Adds a chunk's part of the input's gradient; overwrites `to_active_nW`."""
        loops.multiply_slopes(
            normal_nW.numpy(), self._is_relu, to_active_nW.numpy(), self._sums_W, self._products_W
        )
        self._kept.pop(images.start, None)
        pixels = self._input.pixels(images)
        to_features_NI[pixels].addmm_(to_active_nW, self._normalizing_WI)
        if self._to_normalizing_WI is not None:
            self._to_normalizing_WI.addmm_(to_active_nW.t(), self._input.centred_NI[pixels])

    def finish(self, to_features_NI: Tensor) -> Tensor | None:
        """Adds what batch norm subtracts of the input's gradient; returns that of trained weights.

        The gradient of W x through batch norm is scale * (g - mean(g) - normal * mean(g * normal)); the
        two means are in `g` alone linear, so what they subtract is a row and a matrix of I channels.
        """
        num_pixels = len(to_features_NI)
        mean_W = torch.from_numpy(self._sums_W / num_pixels).float()
        mean_product_W = torch.from_numpy(self._products_W / num_pixels).float()
        correction_II = self._normalizing_WI.t() @ (mean_product_W[:, None] * self._normalizing_WI)
        to_features_NI -= mean_W @ self._normalizing_WI
        to_features_NI.addmm_(self._input.centred_NI, correction_II, alpha=-1)
        if self._to_normalizing_WI is None:
            return None
        # The sum of normal * x over pixels is the scaled quadratic form's inner part.
        shrink_W = num_pixels * mean_product_W * self._scale_W
        self._to_normalizing_WI -= shrink_W[:, None] * self._spread_WI
        return self._to_normalizing_WI.mul_(self._scale_W[:, None])


class PlainExpansion:
    """One run over the whole batch; keeps what batch norm normalises."""

    def __init__(self, layer_input: LayerInput, expansion_WI: Tensor, is_relu: bool, *, trains: bool) -> None:
        self._input, self._is_relu, self._trains = layer_input, is_relu, trains
        self._expansion_WI = expansion_WI
        self._expanded_NW = layer_input.features_NI @ expansion_WI.t()
        self._statistics = loops.mean_and_scale(self._expanded_NW.numpy(), BN_EPS)
        self._to_expansion_WI: Tensor | None = None

    def expand(self, images: slice) -> Tensor:
        """Mid channels of the batch, not normalised, (N, W)."""
        return self._expanded_NW

    def activate(self, expanded_NW: Tensor) -> Tensor:
        """Active mid channels of what `expand` returned."""
        active_NW = torch.empty_like(expanded_NW)
        loops.normalize_and_activate(expanded_NW.numpy(), *self._statistics, self._is_relu, active_NW.numpy())
        return active_NW

    def backward(
        self, images: slice, expanded_NW: Tensor, to_active_NW: Tensor, to_features_NI: Tensor
    ) -> None:
        """Adds the input's gradient; overwrites `to_active_NW`."""
        loops.activation_gradient(
            expanded_NW.numpy(), *self._statistics, self._is_relu, to_active_NW.numpy(), *loops.NO_GATE
        )
        to_features_NI.addmm_(to_active_NW, self._expansion_WI)
        if self._trains:
            self._to_expansion_WI = to_active_NW.t() @ self._input.features_NI

    def finish(self, to_features_NI: Tensor) -> Tensor | None:
        """Returns the gradient of trained weights."""
        return self._to_expansion_WI
