"""A candidate operator up to its last batch norm: forward, and backward by hand.

Shapes: B batch, C channels, I input channels, W active mid channels, R reduced channels of
squeeze-and-excitation, P output channels, H X space (input), Y Z space (output), N pixels of the batch
at the input's resolution, M at the output's; b images and n pixels of a chunk of the batch.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nas.supernet.compiled import candidate_loops as loops
from nas.supernet.compiled.depthwise_convolution import (
    depthwise_conv,
    depthwise_input_gradient,
    depthwise_weight_gradient,
)
from nas.supernet.compiled.expansion import Chunk, Floats, FoldedExpansion, LayerInput, WholeExpansion
from nas.supernet.mixed_block import MBConvShape, MBConvWeights


class CandidateRun:
    """One forward pass of a candidate; keeps what its backward pass needs, which can run once.

    Args:
        weights: at the maximum width, detached.
        width: how many channels are active.
        mix_weight: factor of the candidate in the sum.
        sum_MP: the sum, to which the result is added.
        trains: whether gradients of the weights will be needed.
    """

    def __init__(
        self,
        layer_input: LayerInput,
        weights: MBConvWeights,
        width: int,
        shape: MBConvShape,
        mix_weight: float,
        sum_MP: Floats,
        *,
        trains: bool,
    ) -> None:
        self._input, self._width, self._stride = layer_input, width, shape.stride
        self._is_relu, self._mix_weight = shape.activation == "relu", np.float32(mix_weight)
        self._arrays = _active_arrays(weights, width)
        self._depthwise_W1KK = weights.depthwise_W1KK[:width]
        batch, height, image_width = layer_input.batch_and_space
        self._out_space = (batch, -(-height // shape.stride), -(-image_width // shape.stride))
        expansion_type = FoldedExpansion if layer_input.is_folded else WholeExpansion
        self._expansion = expansion_type(layer_input, self._arrays.expansion_WI, self._is_relu)
        self._filtered_MW = self._filter()
        self._kept = loops.project(
            self._filtered_MW,
            self._is_relu,
            batch,
            self._arrays.projection_WP,
            self._arrays.squeeze,
            self._mix_weight,
            trains,
            sum_MP,
        )

    def backward(
        self,
        gradient_MP: Floats,
        mean_gradient_P: Floats,
        to_features_NI: Floats,
        to_weights: MBConvWeights | None,
    ) -> float:
        """Adds to the gradient of the input; returns that of the mixture weight.

        Args:
            gradient_MP: of the sum.
            mean_gradient_P: its mean over pixels.
            to_weights: at the maximum width; their active channels are filled with the gradients of the
                weights. None without `trains`.
        """
        to_arrays = _FROZEN if to_weights is None else _active_arrays(to_weights, self._width)
        to_filtered_MW, to_mix_weight = loops.project_backward(
            self._filtered_MW,
            self._is_relu,
            self._arrays.projection_WP,
            self._arrays.squeeze,
            self._mix_weight,
            self._kept,
            gradient_MP,
            mean_gradient_P,
            to_arrays.projection_WP,
            to_arrays.squeeze,
        )
        self._kept = None
        self._expansion.start_backward(to_arrays.expansion_WI)
        to_depthwise_W1KK = None if to_weights is None else to_weights.depthwise_W1KK[: self._width].zero_()
        self._filter_backward(to_filtered_MW, to_features_NI, to_depthwise_W1KK)
        self._expansion.finish_backward(to_features_NI)
        return float(to_mix_weight)

    def _filter(self) -> Floats:
        """The depthwise convolution's output, (M, W), computed in chunks of the batch."""
        first, *others = self._input.chunks(self._width)
        filtered_mW = self._filter_chunk(first)
        if not others:
            return filtered_mW
        batch, height, image_width = self._out_space
        # Torch's memory is aligned, which BLAS may depend on.
        filtered_MW: Floats = torch.empty(batch * height * image_width, self._width).numpy()
        filtered_MW[: len(filtered_mW)] = filtered_mW
        size = height * image_width
        for chunk in others:
            filtered_MW[chunk.images.start * size : chunk.images.stop * size] = self._filter_chunk(chunk)
        return filtered_MW

    def _filter_chunk(self, chunk: Chunk) -> Floats:
        active_nW = self._expansion.activate(self._expansion.expand(chunk))
        filtered_bWYZ = depthwise_conv(
            features_of(active_nW, chunk.batch_and_space), self._depthwise_W1KK, self._stride
        )
        return pixels_of(filtered_bWYZ)

    def _filter_backward(
        self, to_filtered_MW: Floats, to_features_NI: Floats, to_depthwise_W1KK: Tensor | None
    ) -> None:
        """Adds to the gradients of the input and of the depthwise weight."""
        to_filtered_BWYZ = features_of(to_filtered_MW, self._out_space)
        chunks = self._input.chunks(self._width)
        for chunk in chunks:
            expanded_nW = self._expansion.expand(chunk)
            to_filtered_bWYZ = to_filtered_BWYZ[chunk.images] if len(chunks) > 1 else to_filtered_BWYZ
            if to_depthwise_W1KK is not None:
                active_nW = self._expansion.activate(expanded_nW)
                to_depthwise_W1KK += depthwise_weight_gradient(
                    features_of(active_nW, chunk.batch_and_space),
                    to_filtered_bWYZ,
                    self._depthwise_W1KK,
                    self._stride,
                )
            to_active_bWHX = depthwise_input_gradient(
                to_filtered_bWYZ, self._depthwise_W1KK, self._stride, chunk.batch_and_space
            )
            self._expansion.backward(chunk, expanded_nW, pixels_of(to_active_bWHX), to_features_NI)


def as_pixels(features_BCHX: Tensor) -> Tensor:
    """Features as dense pixels by channels; a view of them if they are dense and channels-last."""
    return features_BCHX.permute(0, 2, 3, 1).reshape(-1, features_BCHX.shape[1]).contiguous()


def as_features(pixels_NC: Tensor, batch_and_space: tuple[int, int, int]) -> Tensor:
    """The inverse of `as_pixels`, given batch, height and width."""
    return pixels_NC.view(*batch_and_space, -1).permute(0, 3, 1, 2)


# The same for arrays: a view costs torch several times as much as numpy.


def pixels_of(features_BCHX: Tensor) -> Floats:
    """Features as an array of pixels by channels; a view of them if they are dense and channels-last."""
    pixels_NC: Floats = features_BCHX.numpy().transpose(0, 2, 3, 1).reshape(-1, features_BCHX.shape[1])
    return pixels_NC


def features_of(pixels_NC: Floats, batch_and_space: tuple[int, int, int]) -> Tensor:
    """The inverse of `pixels_of`, given batch, height and width."""
    return torch.from_numpy(pixels_NC.reshape(*batch_and_space, -1).transpose(0, 3, 1, 2))


class _ActiveArrays(NamedTuple):
    """Weights of a candidate, or their gradients, as the loops take them; empty if there are none."""

    expansion_WI: Floats
    projection_WP: Floats
    squeeze: tuple[Floats, ...]


_NO_SQUEEZE = tuple(np.empty(shape, np.float32) for shape in ((0, 0), 0, (0, 0), 0))
_FROZEN = _ActiveArrays(np.empty((0, 0), np.float32), np.empty((0, 0), np.float32), _NO_SQUEEZE)


def _active_arrays(weights: MBConvWeights, width: int) -> _ActiveArrays:
    """Views of the active channels."""
    squeeze = _NO_SQUEEZE
    if weights.se_reduce_WR is not None:
        reduce_WR, bias_R, expand_WR, bias_W = (
            tensor.numpy() for tensor in weights[3:] if tensor is not None
        )
        squeeze = reduce_WR[:width], bias_R, expand_WR[:width], bias_W[:width]
    return _ActiveArrays(weights.expansion_WI.numpy()[:width], weights.projection_WP.numpy()[:width], squeeze)
