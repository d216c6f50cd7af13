"""The loops of batch norm and of the activation behind it, compiled.

Shapes: N pixels of the batch, C channels, B images.

Channels are the inner loops, which vectorize. Sums over pixels are taken in float32 over blocks of
pixels that stay in the second-level cache, and in float64 over the blocks.
"""

from typing import Any

import numpy as np

from nas.supernet.compiled.loop_compiler import compile_loop

_BLOCK = 32
"""Pixels per block: 192 KiB at 1536 channels."""


@compile_loop
def mean_and_scale(features_NC: Any, eps: float) -> Any:
    """Mean and 1 / sqrt(variance + eps) of each channel (biased variance; Chan et al.'s merge)."""
    num_pixels, num_channels = features_NC.shape
    mean_C = np.zeros(num_channels, np.float64)
    squares_C = np.zeros(num_channels, np.float64)
    block_mean_C = np.empty(num_channels, np.float32)
    block_squares_C = np.empty(num_channels, np.float32)
    for first in range(0, num_pixels, _BLOCK):
        last = min(first + _BLOCK, num_pixels)
        size = last - first
        block_mean_C[:] = 0
        block_squares_C[:] = 0
        for n in range(first, last):
            for c in range(num_channels):
                block_mean_C[c] += features_NC[n, c]
        for c in range(num_channels):
            block_mean_C[c] /= np.float32(size)
        for n in range(first, last):
            for c in range(num_channels):
                difference = features_NC[n, c] - block_mean_C[c]
                block_squares_C[c] += difference * difference
        for c in range(num_channels):
            difference = block_mean_C[c] - mean_C[c]
            mean_C[c] += difference * size / last
            squares_C[c] += block_squares_C[c] + difference * difference * first * size / last
    scale_C = 1 / np.sqrt(squares_C / num_pixels + eps)
    return mean_C.astype(np.float32), scale_C.astype(np.float32)


@compile_loop
def mean_over_pixels(features_NC: Any) -> Any:
    """Mean of each channel."""
    num_pixels, num_channels = features_NC.shape
    sum_C = np.zeros(num_channels, np.float64)
    for n in range(num_pixels):
        for c in range(num_channels):
            sum_C[c] += features_NC[n, c]
    return (sum_C / num_pixels).astype(np.float32)


@compile_loop
def _sigmoid(x: Any) -> Any:
    """Logistic function to 2e-7 relative: exp(-x) = 2^k exp(r) with |r| <= ln(2) / 2, a polynomial."""
    x = min(max(-x, np.float32(-87)), np.float32(87))
    k = np.floor(x * np.float32(1.44269504) + np.float32(0.5))
    r = x - k * np.float32(0.693359375) + k * np.float32(2.12194440e-4)
    series = np.float32(1 / 5040)
    series = series * r + np.float32(1 / 720)
    series = series * r + np.float32(1 / 120)
    series = series * r + np.float32(1 / 24)
    series = series * r + np.float32(1 / 6)
    series = series * r + np.float32(1 / 2)
    exp_r = series * r * r + r + np.float32(1)
    power = np.int32((np.int32(k) + np.int32(127)) << np.int32(23)).view(np.float32)
    return np.float32(1) / (np.float32(1) + exp_r * power)


@compile_loop
def apply_sigmoid(features_NC: Any) -> None:
    """Applies the logistic function in place."""
    for n in range(len(features_NC)):
        for c in range(features_NC.shape[1]):
            features_NC[n, c] = _sigmoid(features_NC[n, c])


@compile_loop
def activate(features_NC: Any, is_relu: bool, out_NC: Any) -> None:
    """Fills out_NC with the activation of the features."""
    num_pixels, num_channels = features_NC.shape
    for n in range(num_pixels):
        if is_relu:
            for c in range(num_channels):
                out_NC[n, c] = max(features_NC[n, c], np.float32(0))
        else:
            for c in range(num_channels):
                out_NC[n, c] = features_NC[n, c] * _sigmoid(features_NC[n, c])


@compile_loop
def normalize_and_activate(features_NC: Any, mean_C: Any, scale_C: Any, is_relu: bool, out_NC: Any) -> None:
    """Fills out_NC with the activation of the normalized features."""
    num_pixels, num_channels = features_NC.shape
    for n in range(num_pixels):
        if is_relu:
            for c in range(num_channels):
                normal = (features_NC[n, c] - mean_C[c]) * scale_C[c]
                out_NC[n, c] = max(normal, np.float32(0))
        else:
            for c in range(num_channels):
                normal = (features_NC[n, c] - mean_C[c]) * scale_C[c]
                out_NC[n, c] = normal * _sigmoid(normal)


@compile_loop
def _activation_slope(normal: Any, is_relu: bool) -> Any:
    if is_relu:
        return np.float32(1) if normal > 0 else np.float32(0)
    gate = _sigmoid(normal)
    return gate * (np.float32(1) + normal * (np.float32(1) - gate))


@compile_loop
def multiply_slopes(normal_NC: Any, is_relu: bool, gradient_NC: Any, sum_C: Any, product_C: Any) -> None:
    """Multiplies gradient_NC by the slopes of the activation.

    Adds to sum_C and product_C the sums over pixels of the result, and of its product with the features.
    """
    num_pixels, num_channels = normal_NC.shape
    block_sum_C = np.empty(num_channels, np.float32)
    block_product_C = np.empty(num_channels, np.float32)
    for first in range(0, num_pixels, _BLOCK):
        block_sum_C[:] = 0
        block_product_C[:] = 0
        for n in range(first, min(first + _BLOCK, num_pixels)):
            for c in range(num_channels):
                slope = gradient_NC[n, c] * _activation_slope(normal_NC[n, c], is_relu)
                gradient_NC[n, c] = slope
                block_sum_C[c] += slope
                block_product_C[c] += slope * normal_NC[n, c]
        for c in range(num_channels):
            sum_C[c] += block_sum_C[c]
            product_C[c] += block_product_C[c]


@compile_loop
def activation_gradient(
    features_NC: Any,
    mean_C: Any,
    scale_C: Any,
    is_relu: bool,
    gradient_NC: Any,
    gate_BC: Any,
    offset_BC: Any,
) -> None:
    """Turns the gradient behind an activation into that of its features before batch norm, in place.

    The gradient is first replaced by gate * gradient + offset, each image having its own; not so where
    `gate_BC` is empty.
    """
    num_pixels, num_channels = features_NC.shape
    sum_C = np.zeros(num_channels, np.float64)
    product_C = np.zeros(num_channels, np.float64)
    block_sum_C = np.empty(num_channels, np.float32)
    block_product_C = np.empty(num_channels, np.float32)
    for first in range(0, num_pixels, _BLOCK):
        block_sum_C[:] = 0
        block_product_C[:] = 0
        for n in range(first, min(first + _BLOCK, num_pixels)):
            if len(gate_BC) > 0:
                image = n * len(gate_BC) // num_pixels
                for c in range(num_channels):
                    gradient_NC[n, c] = gradient_NC[n, c] * gate_BC[image, c] + offset_BC[image, c]
            for c in range(num_channels):
                normal = (features_NC[n, c] - mean_C[c]) * scale_C[c]
                slope = gradient_NC[n, c] * _activation_slope(normal, is_relu)
                gradient_NC[n, c] = slope
                block_sum_C[c] += slope
                block_product_C[c] += slope * normal
        for c in range(num_channels):
            sum_C[c] += block_sum_C[c]
            product_C[c] += block_product_C[c]
    mean_gradient_C = (sum_C / num_pixels).astype(np.float32)
    mean_product_C = (product_C / num_pixels).astype(np.float32)
    for n in range(num_pixels):
        for c in range(num_channels):
            normal = (features_NC[n, c] - mean_C[c]) * scale_C[c]
            centered = gradient_NC[n, c] - mean_gradient_C[c] - normal * mean_product_C[c]
            gradient_NC[n, c] = scale_C[c] * centered


@compile_loop
def gate_gradient(
    features_NC: Any, mean_C: Any, scale_C: Any, is_relu: bool, gradient_NC: Any, to_gate_BC: Any
) -> None:
    """Fills to_gate_BC with the gradient of factors on `normalize_and_activate`'s output, one per image."""
    num_pixels = len(features_NC) // len(to_gate_BC)
    to_gate_BC[:] = 0
    for n in range(len(features_NC)):
        image = n // num_pixels
        for c in range(features_NC.shape[1]):
            normal = (features_NC[n, c] - mean_C[c]) * scale_C[c]
            active = max(normal, np.float32(0)) if is_relu else normal * _sigmoid(normal)
            to_gate_BC[image, c] += gradient_NC[n, c] * active


@compile_loop
def add_normalized(features_NC: Any, eps: float, weight: Any, out_NC: Any) -> Any:
    """Adds weight * the normalized features to out_NC; returns mean_C and scale_C."""
    mean_C, scale_C = mean_and_scale(features_NC, eps)
    num_pixels, num_channels = features_NC.shape
    weighted_C = weight * scale_C
    for n in range(num_pixels):
        for c in range(num_channels):
            out_NC[n, c] += (features_NC[n, c] - mean_C[c]) * weighted_C[c]
    return mean_C, scale_C


@compile_loop
def normalized_gradient(
    features_NC: Any,
    mean_C: Any,
    scale_C: Any,
    weight: Any,
    gradient_NC: Any,
    mean_gradient_C: Any,
    to_features_NC: Any,
) -> Any:
    """Fills to_features_NC with the gradient through weight * batch norm; returns that of the weight."""
    num_pixels, num_channels = features_NC.shape
    product_C = np.zeros(num_channels, np.float64)
    block_product_C = np.empty(num_channels, np.float32)
    for first in range(0, num_pixels, _BLOCK):
        block_product_C[:] = 0
        for n in range(first, min(first + _BLOCK, num_pixels)):
            for c in range(num_channels):
                normal = (features_NC[n, c] - mean_C[c]) * scale_C[c]
                block_product_C[c] += gradient_NC[n, c] * normal
        for c in range(num_channels):
            product_C[c] += block_product_C[c]
    mean_product_C = (product_C / num_pixels).astype(np.float32)
    weighted_C = weight * scale_C
    for n in range(num_pixels):
        for c in range(num_channels):
            normal = (features_NC[n, c] - mean_C[c]) * scale_C[c]
            to_features_NC[n, c] = weighted_C[c] * (
                gradient_NC[n, c] - mean_gradient_C[c] - normal * mean_product_C[c]
            )
    return product_C.sum()
