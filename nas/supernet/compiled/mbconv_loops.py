"""What a candidate operator does before and after its depthwise convolution, compiled.

Shapes: I input channels, W active mid channels, R reduced channels of squeeze-and-excitation, P output
channels, N pixels of the batch at the input's resolution, M at the output's, n pixels of a chunk, B images.

Each function is a run of small steps that would cost a call of Python each: at small resolutions the
calls took longer than the work.
"""

from typing import Any

import numpy as np

from nas.supernet.compiled import normalization_loops as loops
from nas.supernet.compiled.compilation import compile_loop, make_matrix, multiply
from nas.supernet.mixed_block import BN_EPS

_ONE, _ZERO = np.float32(1), np.float32(0)


@compile_loop
def fold(expansion_WI: Any, covariance_II: Any) -> Any:
    """Folds batch norm into an expansion, from the covariance of its input.

    Returns:
        Expansion times covariance, the scales_W, and the normalising weights_WI.
    """
    spread_WI, normalizing_WI = make_matrix(*expansion_WI.shape), make_matrix(*expansion_WI.shape)
    multiply(expansion_WI, False, covariance_II, False, _ONE, _ZERO, spread_WI)
    scale_W = np.empty(len(expansion_WI), np.float32)
    for w in range(len(expansion_WI)):
        variance = _ZERO
        for i in range(expansion_WI.shape[1]):
            variance += spread_WI[w, i] * expansion_WI[w, i]
        # Rounding may leave a little less than nothing; what is not a number stays so.
        variance = _ZERO if variance < 0 else variance
        scale_W[w] = 1 / np.sqrt(variance + np.float32(BN_EPS))
        for i in range(expansion_WI.shape[1]):
            normalizing_WI[w, i] = expansion_WI[w, i] * scale_W[w]
    return spread_WI, scale_W, normalizing_WI


@compile_loop
def expand_folded(centred_nI: Any, normalizing_WI: Any) -> Any:
    """Normal mid channels of a chunk."""
    normal_nW = make_matrix(len(centred_nI), len(normalizing_WI))
    multiply(centred_nI, False, normalizing_WI, True, _ONE, _ZERO, normal_nW)
    return normal_nW


@compile_loop
def activate(normal_nW: Any, is_relu: bool) -> Any:
    """Active mid channels of a chunk."""
    active_nW = make_matrix(*normal_nW.shape)
    loops.activate(normal_nW, is_relu, active_nW)
    return active_nW


@compile_loop
def folded_backward(
    normal_nW: Any,
    is_relu: bool,
    to_active_nW: Any,
    normalizing_WI: Any,
    centred_nI: Any,
    sum_W: Any,
    product_W: Any,
    to_features_nI: Any,
    to_normalizing_WI: Any,
) -> None:
    """Adds a chunk's part of the gradients; those of weights only if to_normalizing_WI has rows."""
    loops.multiply_slopes(normal_nW, is_relu, to_active_nW, sum_W, product_W)
    multiply(to_active_nW, False, normalizing_WI, False, _ONE, _ONE, to_features_nI)
    if len(to_normalizing_WI) > 0:
        multiply(to_active_nW, True, centred_nI, False, _ONE, _ONE, to_normalizing_WI)


@compile_loop
def finish_folded_backward(
    sum_W: Any,
    product_W: Any,
    normalizing_WI: Any,
    spread_WI: Any,
    scale_W: Any,
    centred_NI: Any,
    to_features_NI: Any,
    to_normalizing_WI: Any,
) -> None:
    """Adds what batch norm subtracts of the gradients; turns that of the weights into the expansion's.

    The gradient of W x through batch norm is scale * (g - mean(g) - normal * mean(g * normal)); the
    two means are in `g` alone linear, so what they subtract is a row and a matrix of I channels.
    """
    num_pixels, num_inputs = centred_NI.shape
    weighted_WI, correction_II = make_matrix(*normalizing_WI.shape), make_matrix(num_inputs, num_inputs)
    row_I = np.zeros(num_inputs, np.float32)
    for w in range(len(normalizing_WI)):
        mean, mean_product = np.float32(sum_W[w] / num_pixels), np.float32(product_W[w] / num_pixels)
        for i in range(num_inputs):
            weighted_WI[w, i] = mean_product * normalizing_WI[w, i]
            row_I[i] += mean * normalizing_WI[w, i]
    multiply(normalizing_WI, True, weighted_WI, False, _ONE, _ZERO, correction_II)
    for n in range(num_pixels):
        for i in range(num_inputs):
            to_features_NI[n, i] -= row_I[i]
    multiply(centred_NI, False, correction_II, False, -_ONE, _ONE, to_features_NI)
    for w in range(len(to_normalizing_WI)):
        # The sum of normal * x over pixels is the scaled quadratic form's inner part.
        shrink = np.float32(product_W[w]) * scale_W[w]
        for i in range(num_inputs):
            inner = to_normalizing_WI[w, i] - shrink * spread_WI[w, i]
            to_normalizing_WI[w, i] = inner * scale_W[w]


@compile_loop
def expand_plain(features_NI: Any, expansion_WI: Any) -> Any:
    """Mid channels of the batch, their means and scales."""
    expanded_NW = make_matrix(len(features_NI), len(expansion_WI))
    multiply(features_NI, False, expansion_WI, True, _ONE, _ZERO, expanded_NW)
    mean_W, scale_W = loops.mean_and_scale(expanded_NW, BN_EPS)
    return expanded_NW, mean_W, scale_W


@compile_loop
def activate_plain(expanded_NW: Any, mean_W: Any, scale_W: Any, is_relu: bool) -> Any:
    """Active mid channels of the batch."""
    active_NW = make_matrix(*expanded_NW.shape)
    loops.normalize_and_activate(expanded_NW, mean_W, scale_W, is_relu, active_NW)
    return active_NW


@compile_loop
def plain_backward(
    expanded_NW: Any,
    mean_W: Any,
    scale_W: Any,
    is_relu: bool,
    to_active_NW: Any,
    expansion_WI: Any,
    features_NI: Any,
    to_features_NI: Any,
    to_expansion_WI: Any,
) -> None:
    """Adds to the gradient of the input, and fills that of the expansion if it has rows."""
    none_BW = np.empty((0, 0), np.float32)
    loops.activation_gradient(expanded_NW, mean_W, scale_W, is_relu, to_active_NW, none_BW, none_BW)
    multiply(to_active_NW, False, expansion_WI, False, _ONE, _ONE, to_features_NI)
    if len(to_expansion_WI) > 0:
        multiply(to_active_NW, True, features_NI, False, _ONE, _ZERO, to_expansion_WI)


@compile_loop
def project(
    filtered_MW: Any,
    is_relu: bool,
    num_images: int,
    projection_WP: Any,
    squeeze: Any,
    mix_weight: Any,
    keeps_gated: bool,
    sum_MP: Any,
) -> Any:
    """From the depthwise convolution's output to the sum of the candidates, to which it adds.

    Args:
        squeeze: reduce_WR, reduce_bias_R, expand_WR and expand_bias_W; without columns if there is none.
        keeps_gated: whether the gradient of the projection will be asked for.

    Returns:
        What `project_backward` needs.
    """
    mean_W, scale_W = loops.mean_and_scale(filtered_MW, BN_EPS)
    gated_MW = make_matrix(*filtered_MW.shape)
    loops.normalize_and_activate(filtered_MW, mean_W, scale_W, is_relu, gated_MW)
    mean_BW, squeezed_BR, gate_BW = _squeeze_and_excite(gated_MW, num_images, is_relu, squeeze)
    out_MP = make_matrix(len(filtered_MW), projection_WP.shape[1])
    multiply(gated_MW, False, projection_WP, False, _ONE, _ZERO, out_MP)
    out_mean_P, out_scale_P = loops.add_normalized(out_MP, BN_EPS, mix_weight, sum_MP)
    if not keeps_gated:
        gated_MW = make_matrix(0, 0)
    return mean_W, scale_W, gated_MW, mean_BW, squeezed_BR, gate_BW, out_MP, out_mean_P, out_scale_P


@compile_loop
def _squeeze_and_excite(gated_MW: Any, num_images: int, is_relu: bool, squeeze: Any) -> Any:
    """Multiplies active channels by their gates; returns the means, what the gates see, and the gates."""
    reduce_WR, reduce_bias_R, expand_WR, expand_bias_W = squeeze
    num_reduced, width = reduce_WR.shape[1], gated_MW.shape[1]
    if num_reduced == 0:
        return make_matrix(0, 0), make_matrix(0, 0), make_matrix(0, 0)
    mean_BW = make_matrix(num_images, width)
    loops.mean_images(gated_MW, mean_BW)
    squeezed_BR, reduced_BR = make_matrix(num_images, num_reduced), make_matrix(num_images, num_reduced)
    loops.fill_rows(reduce_bias_R, squeezed_BR)
    multiply(mean_BW, False, reduce_WR, False, _ONE, _ONE, squeezed_BR)
    loops.activate(squeezed_BR, is_relu, reduced_BR)
    gate_BW = make_matrix(num_images, width)
    loops.fill_rows(expand_bias_W, gate_BW)
    multiply(reduced_BR, False, expand_WR, True, _ONE, _ONE, gate_BW)
    loops.apply_sigmoid(gate_BW)
    loops.multiply_images(gated_MW, gate_BW)
    return mean_BW, squeezed_BR, gate_BW


@compile_loop
def project_backward(
    filtered_MW: Any,
    is_relu: bool,
    projection_WP: Any,
    squeeze: Any,
    mix_weight: Any,
    kept: Any,
    gradient_MP: Any,
    mean_gradient_P: Any,
    to_projection_WP: Any,
    to_squeeze: Any,
) -> Any:
    """Returns the gradients of the depthwise convolution's output and of the mixture weight.

    Args:
        kept: what `project` returned.
        to_projection_WP: is filled, and so is `to_squeeze`, where `project` kept what that takes.
    """
    mean_W, scale_W, gated_MW, mean_BW, squeezed_BR, gate_BW, out_MP, out_mean_P, out_scale_P = kept
    to_out_MP = make_matrix(*out_MP.shape)
    to_mix_weight = loops.normalized_gradient(
        out_MP, out_mean_P, out_scale_P, mix_weight, gradient_MP, mean_gradient_P, to_out_MP
    )
    if len(gated_MW) > 0:
        multiply(gated_MW, True, to_out_MP, False, _ONE, _ZERO, to_projection_WP)
    to_filtered_MW = make_matrix(*filtered_MW.shape)
    multiply(to_out_MP, False, projection_WP, True, _ONE, _ZERO, to_filtered_MW)
    offset_BW = make_matrix(0, 0)
    if len(gate_BW) > 0:
        to_gate_BW = make_matrix(*gate_BW.shape)
        loops.gate_gradient(filtered_MW, mean_W, scale_W, is_relu, to_filtered_MW, to_gate_BW)
        offset_BW = _squeeze_backward(
            to_gate_BW, gate_BW, squeezed_BR, mean_BW, is_relu, squeeze, len(gated_MW) > 0, to_squeeze
        )
        num_pixels = np.float32(len(filtered_MW) // len(gate_BW))
        for b in range(len(gate_BW)):
            for w in range(offset_BW.shape[1]):
                offset_BW[b, w] /= num_pixels
    loops.activation_gradient(filtered_MW, mean_W, scale_W, is_relu, to_filtered_MW, gate_BW, offset_BW)
    return to_filtered_MW, to_mix_weight


@compile_loop
def _squeeze_backward(
    to_gate_BW: Any,
    gate_BW: Any,
    squeezed_BR: Any,
    mean_BW: Any,
    is_relu: bool,
    squeeze: Any,
    trains: bool,
    to_squeeze: Any,
) -> Any:
    """Returns the gradient of the means; fills those of the weights if they are trained."""
    reduce_WR, _, expand_WR, _ = squeeze
    loops.multiply_sigmoid_slopes(gate_BW, to_gate_BW)
    to_squeezed_BR = make_matrix(*squeezed_BR.shape)
    multiply(to_gate_BW, False, expand_WR, False, _ONE, _ZERO, to_squeezed_BR)
    reduced_BR = make_matrix(*squeezed_BR.shape)
    loops.activate(squeezed_BR, is_relu, reduced_BR)
    unused_sum_R, unused_product_R = np.zeros(squeezed_BR.shape[1]), np.zeros(squeezed_BR.shape[1])
    loops.multiply_slopes(squeezed_BR, is_relu, to_squeezed_BR, unused_sum_R, unused_product_R)
    if trains:
        to_reduce_WR, to_reduce_bias_R, to_expand_WR, to_expand_bias_W = to_squeeze
        multiply(to_gate_BW, True, reduced_BR, False, _ONE, _ZERO, to_expand_WR)
        multiply(mean_BW, True, to_squeezed_BR, False, _ONE, _ZERO, to_reduce_WR)
        loops.sum_rows(to_gate_BW, to_expand_bias_W)
        loops.sum_rows(to_squeezed_BR, to_reduce_bias_R)
    to_mean_BW = make_matrix(*mean_BW.shape)
    multiply(to_squeezed_BR, False, reduce_WR, True, _ONE, _ZERO, to_mean_BW)
    return to_mean_BW
