"""A candidate operator up to its last batch norm: forward, and backward by hand.

Shapes: B batch, C channels, I input channels, W active mid channels, R reduced channels of
squeeze-and-excitation, P output channels, H X space (input), Y Z space (output), N pixels of the batch
at the input's resolution, M at the output's; b images and n pixels of a chunk of the batch.
"""

import numpy as np
from torch import Tensor

from nas.supernet.compiled import candidate_loops as loops
from nas.supernet.compiled.active_weights import FROZEN, ActiveWeights, WeightGradients
from nas.supernet.compiled.depthwise_convolution import (
    Floats,
    depthwise_conv,
    depthwise_input_gradient,
    depthwise_weight_gradient,
)
from nas.supernet.compiled.expansion import Chunk, FoldedExpansion, LayerInput, WholeExpansion
from nas.supernet.mixed_block import MBConvShape


class CandidateRun:
    """One forward pass of a candidate; keeps what its backward pass needs, which can run once.

    Args:
        weights: the active ones.
        mix_weight: factor of the candidate in the sum.
        sum_MP: the sum, to which the result is added.
        trains: whether gradients of the weights will be needed.
    """

    def __init__(
        self,
        layer_input: LayerInput,
        weights: ActiveWeights,
        shape: MBConvShape,
        mix_weight: float,
        sum_MP: Floats,
        *,
        trains: bool,
    ) -> None:
        self._width, self._stride = len(weights.expansion_WI), shape.stride
        self._is_relu, self._mix_weight = shape.activation == "relu", np.float32(mix_weight)
        self._weights = weights
        self._chunks = layer_input.chunks(self._width, shape.stride)
        expansion_type = FoldedExpansion if layer_input.is_folded else WholeExpansion
        self._expansion = expansion_type(layer_input, self._weights.expansion_WI, self._is_relu)
        self._filtered_MW = self._filter()
        self._kept = loops.project(
            self._filtered_MW,
            self._is_relu,
            layer_input.batch_and_space[0],
            self._weights.projection_WP,
            self._weights.squeeze,
            self._mix_weight,
            trains,
            sum_MP,
        )

    def backward(
        self,
        gradient_MP: Floats,
        mean_gradient_P: Floats,
        to_features_NI: Floats,
        to_weights: WeightGradients | None,
    ) -> float:
        """Adds to the gradient of the input; returns that of the mixture weight.

        Args:
            gradient_MP: of the sum.
            mean_gradient_P: its mean over pixels.
            to_weights: are filled. None without `trains`.
        """
        to_arrays = FROZEN if to_weights is None else to_weights.active
        to_filtered_MW, to_mix_weight = loops.project_backward(
            self._filtered_MW,
            self._is_relu,
            self._weights.projection_WP,
            self._weights.squeeze,
            self._mix_weight,
            self._kept,
            gradient_MP,
            mean_gradient_P,
            to_arrays.projection_WP,
            to_arrays.squeeze,
        )
        self._kept = None
        self._expansion.start_backward(to_arrays.expansion_WI)
        self._filter_backward(to_filtered_MW, to_features_NI, to_arrays.depthwise_W1KK)
        self._expansion.finish_backward(to_features_NI)
        return float(to_mix_weight)

    def _filter(self) -> Floats:
        """The depthwise convolution's output, (M, W), computed in chunks of the batch."""
        if len(self._chunks) == 1:
            return self._filter_chunk(self._chunks[0])
        filtered_MW: Floats = np.empty((self._chunks[-1].out_pixels.stop, self._width), np.float32)
        for chunk in self._chunks:
            filtered_MW[chunk.out_pixels] = self._filter_chunk(chunk)
        return filtered_MW

    def _filter_chunk(self, chunk: Chunk) -> Floats:
        active_nW = self._expansion.activate(self._expansion.expand(chunk))
        return depthwise_conv(active_nW, self._weights.depthwise_W1KK, self._stride, chunk.batch_and_space)

    def _filter_backward(
        self, to_filtered_MW: Floats, to_features_NI: Floats, to_depthwise_W1KK: Tensor
    ) -> None:
        """Adds to the gradients of the input and, unless it is frozen, of the depthwise weight."""
        for chunk in self._chunks:
            expanded_nW = self._expansion.expand(chunk)
            to_filtered_mW = to_filtered_MW[chunk.out_pixels]
            others = self._weights.depthwise_W1KK, self._stride, chunk.batch_and_space
            if len(to_depthwise_W1KK):
                active_nW = self._expansion.activate(expanded_nW)
                to_depthwise_W1KK += depthwise_weight_gradient(active_nW, to_filtered_mW, *others)
            to_active_nW = depthwise_input_gradient(to_filtered_mW, *others)
            self._expansion.backward(chunk, expanded_nW, to_active_nW, to_features_NI)
