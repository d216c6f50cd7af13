"""What a candidate operator computes before and after its depthwise convolution, compiled.

Shapes: I input channels, W active mid channels, R reduced channels of squeeze-and-excitation, P output
channels, N pixels of the batch at the input's resolution, M at the output's, n pixels of a chunk, B images.

Each function joins small steps, each of which would cost a call from Python: at small resolutions the
calls took longer than the work.
"""

from typing import Any

import numpy as np

from nas.supernet.compiled import normalization_loops as loops
from nas.supernet.compiled.loop_compiler import compile_loop
from nas.supernet.compiled.matrix_product import make_matrix, multiply
from nas.supernet.mixed_block import BN_EPS

_ONE, _ZERO = np.float32(1), np.float32(0)

# Expansion


@compile_loop
def fold(expansion_WI: Any, covariance_II: Any) -> Any:
    """Folds batch norm into an expansion, given the covariance of its input.

    Returns:
        Expansion times covariance, the scales_W, and the normalizing weights_WI.
    """
    spread_WI, normalizing_WI = make_matrix(*expansion_WI.shape), make_matrix(*expansion_WI.shape)
    multiply(expansion_WI, False, covariance_II, False, _ONE, _ZERO, spread_WI)
    scale_W = np.empty(len(expansion_WI), np.float32)
    for w in range(len(expansion_WI)):
        variance = _ZERO
        for i in range(expansion_WI.shape[1]):
            variance += spread_WI[w, i] * expansion_WI[w, i]
        # Rounding may leave a variance slightly below 0; NaN stays NaN.
        variance = _ZERO if variance < 0 else variance
        scale_W[w] = 1 / np.sqrt(variance + np.float32(BN_EPS))
        for i in range(expansion_WI.shape[1]):
            normalizing_WI[w, i] = expansion_WI[w, i] * scale_W[w]
    return spread_WI, scale_W, normalizing_WI


@compile_loop
def expand(features_nI: Any, expansion_WI: Any) -> Any:
    """Mid channels of a chunk."""
    expanded_nW = make_matrix(len(features_nI), len(expansion_WI))
    multiply(features_nI, False, expansion_WI, True, _ONE, _ZERO, expanded_nW)
    return expanded_nW


@compile_loop
def expand_and_measure(features_NI: Any, expansion_WI: Any) -> Any:
    """Mid channels of the batch, their means_W and scales_W."""
    expanded_NW = expand(features_NI, expansion_WI)
    mean_W, scale_W = loops.mean_and_scale(expanded_NW, BN_EPS)
    return expanded_NW, mean_W, scale_W


@compile_loop
def activate(normal_nW: Any, is_relu: bool) -> Any:
    """The activation of normal mid channels."""
    active_nW = make_matrix(*normal_nW.shape)
    loops.activate(normal_nW, is_relu, active_nW)
    return active_nW


@compile_loop
def normalize_and_activate(expanded_NW: Any, mean_W: Any, scale_W: Any, is_relu: bool) -> Any:
    """The activation of mid channels whose statistics are given."""
    active_NW = make_matrix(*expanded_NW.shape)
    loops.normalize_and_activate(expanded_NW, mean_W, scale_W, is_relu, active_NW)
    return active_NW


@compile_loop
def folded_backward(
    normal_nW: Any,
    is_relu: bool,
    to_active_nW: Any,
    normalizing_WI: Any,
    centered_nI: Any,
    sum_W: Any,
    product_W: Any,
    to_features_nI: Any,
    to_normalizing_WI: Any,
) -> None:
    """Adds a chunk's part of the gradients; those of the weights only if to_normalizing_WI has rows."""
    loops.multiply_slopes(normal_nW, is_relu, to_active_nW, sum_W, product_W)
    multiply(to_active_nW, False, normalizing_WI, False, _ONE, _ONE, to_features_nI)
    if len(to_normalizing_WI) > 0:
        multiply(to_active_nW, True, centered_nI, False, _ONE, _ONE, to_normalizing_WI)


@compile_loop
def finish_folded_backward(
    sum_W: Any,
    product_W: Any,
    normalizing_WI: Any,
    spread_WI: Any,
    scale_W: Any,
    centered_NI: Any,
    to_features_NI: Any,
    to_normalizing_WI: Any,
) -> None:
    """Subtracts batch norm's part of the gradients; turns that of the weights into the expansion's.

    The gradient of W x through batch norm is scale * (g - mean(g) - normal * mean(g * normal)). It is
    linear in the two means, so their part is a row and a matrix of I channels.
    """
    num_pixels, num_inputs = centered_NI.shape
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
    multiply(centered_NI, False, correction_II, False, -_ONE, _ONE, to_features_NI)
    for w in range(len(to_normalizing_WI)):
        # The sum of normal * x over pixels is the inner part of the scaled quadratic form.
        shrink = np.float32(product_W[w]) * scale_W[w]
        for i in range(num_inputs):
            inner = to_normalizing_WI[w, i] - shrink * spread_WI[w, i]
            to_normalizing_WI[w, i] = inner * scale_W[w]


@compile_loop
def whole_backward(
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
    """Adds to the gradient of the input; fills that of the expansion if it has rows."""
    none = make_matrix(0, 0)
    loops.activation_gradient(expanded_NW, mean_W, scale_W, is_relu, to_active_NW, none, none)
    multiply(to_active_NW, False, expansion_WI, False, _ONE, _ONE, to_features_NI)
    if len(to_expansion_WI) > 0:
        multiply(to_active_NW, True, features_NI, False, _ONE, _ZERO, to_expansion_WI)


# Projection


@compile_loop
def project(
    filtered_MW: Any,
    is_relu: bool,
    num_images: int,
    projection_WP: Any,
    squeeze: Any,
    mix_weight: Any,
    trains: bool,
    sum_MP: Any,
) -> Any:
    """From the output of the depthwise convolution to the sum of the candidates, to which it adds.

    Args:
        squeeze: reduce_WR, reduce_bias_R, expand_WR and expand_bias_W; all empty if there is none.
        trains: whether the gradients of the weights will be needed.

    Returns:
        What `project_backward` needs.
    """
    mean_W, scale_W = loops.mean_and_scale(filtered_MW, BN_EPS)
    gated_MW = normalize_and_activate(filtered_MW, mean_W, scale_W, is_relu)
    if squeeze[0].shape[1] > 0:
        excited = _excite(gated_MW, num_images, is_relu, squeeze)
    else:
        excited = make_matrix(0, 0), make_matrix(0, 0), make_matrix(0, 0)
    out_MP = make_matrix(len(filtered_MW), projection_WP.shape[1])
    multiply(gated_MW, False, projection_WP, False, _ONE, _ZERO, out_MP)
    out_mean_P, out_scale_P = loops.add_normalized(out_MP, BN_EPS, mix_weight, sum_MP)
    if not trains:
        gated_MW = make_matrix(0, 0)
    return mean_W, scale_W, gated_MW, excited, out_MP, out_mean_P, out_scale_P


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
        to_projection_WP: is filled, like `to_squeeze`, if `project` had `trains` set.
    """
    mean_W, scale_W, gated_MW, excited, out_MP, out_mean_P, out_scale_P = kept
    to_out_MP = make_matrix(*out_MP.shape)
    to_mix_weight = loops.normalized_gradient(
        out_MP, out_mean_P, out_scale_P, mix_weight, gradient_MP, mean_gradient_P, to_out_MP
    )
    trains = len(gated_MW) > 0
    if trains:
        multiply(gated_MW, True, to_out_MP, False, _ONE, _ZERO, to_projection_WP)
    to_filtered_MW = make_matrix(*filtered_MW.shape)
    multiply(to_out_MP, False, projection_WP, True, _ONE, _ZERO, to_filtered_MW)
    gate_BW = excited[2]
    offset_BW = make_matrix(0, 0)
    if len(gate_BW) > 0:
        to_gate_BW = make_matrix(*gate_BW.shape)
        loops.gate_gradient(filtered_MW, mean_W, scale_W, is_relu, to_filtered_MW, to_gate_BW)
        offset_BW = _excite_backward(to_gate_BW, excited, is_relu, squeeze, trains, to_squeeze)
        offset_BW /= np.float32(len(filtered_MW) // len(gate_BW))
    loops.activation_gradient(filtered_MW, mean_W, scale_W, is_relu, to_filtered_MW, gate_BW, offset_BW)
    return to_filtered_MW, to_mix_weight


# Squeeze-and-excitation


@compile_loop
def _excite(active_MW: Any, num_images: int, is_relu: bool, squeeze: Any) -> Any:
    """Multiplies active channels by their gates; returns the means, the reduced channels and the gates."""
    reduce_WR, reduce_bias_R, expand_WR, expand_bias_W = squeeze
    width, num_reduced = reduce_WR.shape
    num_pixels = len(active_MW) // num_images
    mean_BW, gate_BW = make_matrix(num_images, width), make_matrix(num_images, width)
    squeezed_BR = make_matrix(num_images, num_reduced)
    mean_BW[:] = 0
    for m in range(len(active_MW)):
        image = m // num_pixels
        for w in range(width):
            mean_BW[image, w] += active_MW[m, w]
    mean_BW /= np.float32(num_pixels)
    squeezed_BR[:] = reduce_bias_R
    multiply(mean_BW, False, reduce_WR, False, _ONE, _ONE, squeezed_BR)
    gate_BW[:] = expand_bias_W
    multiply(activate(squeezed_BR, is_relu), False, expand_WR, True, _ONE, _ONE, gate_BW)
    loops.apply_sigmoid(gate_BW)
    for m in range(len(active_MW)):
        image = m // num_pixels
        for w in range(width):
            active_MW[m, w] *= gate_BW[image, w]
    return mean_BW, squeezed_BR, gate_BW


@compile_loop
def _excite_backward(
    to_gate_BW: Any, excited: Any, is_relu: bool, squeeze: Any, trains: bool, to_squeeze: Any
) -> Any:
    """Returns the gradient of each image's means; overwrites that of the gates.

    Args:
        to_squeeze: is filled with the gradients of the weights if they are trained.
    """
    reduce_WR, _, expand_WR, _ = squeeze
    mean_BW, squeezed_BR, gate_BW = excited
    num_reduced = reduce_WR.shape[1]
    to_gate_BW *= gate_BW * (_ONE - gate_BW)
    to_squeezed_BR = make_matrix(*squeezed_BR.shape)
    multiply(to_gate_BW, False, expand_WR, False, _ONE, _ZERO, to_squeezed_BR)
    sum_R, product_R = np.zeros(num_reduced), np.zeros(num_reduced)
    loops.multiply_slopes(squeezed_BR, is_relu, to_squeezed_BR, sum_R, product_R)
    if trains:
        to_reduce_WR, to_reduce_bias_R, to_expand_WR, to_expand_bias_W = to_squeeze
        multiply(to_gate_BW, True, activate(squeezed_BR, is_relu), False, _ONE, _ZERO, to_expand_WR)
        multiply(mean_BW, True, to_squeezed_BR, False, _ONE, _ZERO, to_reduce_WR)
        to_expand_bias_W[:] = to_gate_BW.sum(0)
        to_reduce_bias_R[:] = sum_R
    to_mean_BW = make_matrix(*gate_BW.shape)
    multiply(to_squeezed_BR, False, reduce_WR, True, _ONE, _ZERO, to_mean_BW)
    return to_mean_BW
