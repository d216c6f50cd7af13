"""Depthwise convolutions with same padding, and their gradients.

Shapes: B batch, C channels, H W space (input), Y X space (output), N pixels of the batch (input), M pixels
(output), K kernel size, T its taps.

On the CPU oneDNN computes the gradient of the weight many times slower than the forward pass: for
kernel size 5 at every resolution, for kernel size 3 at the smallest ones. The loop here keeps a block
of channels in the first-level cache and sums four output columns at once for each row of taps. At one
pixel, only the center tap of a kernel meets an input.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from nas.supernet.compiled.loop_compiler import compile_loop
from nas.supernet.compiled.matrix_product import make_matrix

_BLOCK = 128
"""Channels per block; the rows and sums of one block fit in a first-level cache of 32 KiB."""


Floats = NDArray[np.float32]
BatchAndSpace = tuple[int, int, int]
"""Images, height and width."""


def as_features(pixels_NC: Floats, batch_and_space: BatchAndSpace) -> Tensor:
    """An array of pixels by channels as channels-last features, without a copy."""
    # A view costs torch several times as much as numpy.
    return torch.from_numpy(pixels_NC.reshape(*batch_and_space, -1).transpose(0, 3, 1, 2))


def as_pixels(features_BCHW: Tensor) -> Floats:
    """The inverse of `as_features`; a copy if the features are not dense and channels-last."""
    pixels_BHWC: Floats = features_BCHW.numpy().transpose(0, 2, 3, 1)
    if not pixels_BHWC.flags.c_contiguous:
        # Torch aligns its memory, and BLAS may round differently where it is aligned differently.
        pixels_BHWC = features_BCHW.permute(0, 2, 3, 1).contiguous().numpy()
    return pixels_BHWC.reshape(-1, pixels_BHWC.shape[-1])


def after_stride(batch_and_space: BatchAndSpace, stride: int) -> BatchAndSpace:
    """Images, height and width of a convolution's output."""
    batch, height, width = batch_and_space
    return batch, -(-height // stride), -(-width // stride)


def depthwise_conv(
    features_NC: Floats, weight_C1KK: Tensor, stride: int, batch_and_space: BatchAndSpace
) -> Floats:
    """The convolution of the pixels of images of that height and width."""
    if batch_and_space[1:] == (1, 1):
        return _scale(features_NC, _center_taps(weight_C1KK))  # type: ignore[no-any-return]
    padding, num_channels = weight_C1KK.shape[-1] // 2, len(weight_C1KK)
    features_BCHW = as_features(features_NC, batch_and_space)
    return as_pixels(F.conv2d(features_BCHW, weight_C1KK, None, stride, padding, 1, num_channels))


def depthwise_input_gradient(
    gradient_MC: Floats, weight_C1KK: Tensor, stride: int, batch_and_space: BatchAndSpace
) -> Floats:
    """Gradient with respect to the input, of which only images, height and width are needed."""
    if batch_and_space[1:] == (1, 1):
        return depthwise_conv(gradient_MC, weight_C1KK, stride, batch_and_space)
    if stride == 1:
        # The same convolution with reversed taps, which oneDNN computes faster for kernel size 5.
        return depthwise_conv(gradient_MC, weight_C1KK.flip(2, 3), 1, batch_and_space)
    gradient_BCYX = as_features(gradient_MC, after_stride(batch_and_space, stride))
    batch, *space = batch_and_space
    # Memory that is never touched costs nothing.
    like_BCHW = torch.empty(
        (batch, len(weight_C1KK), *space),
        dtype=torch.float32,
        device="cpu",
        memory_format=torch.channels_last,
    )
    return as_pixels(_torch_gradients(gradient_BCYX, like_BCHW, weight_C1KK, stride, of_input=True))


def depthwise_weight_gradient(
    features_NC: Floats, gradient_MC: Floats, weight_C1KK: Tensor, stride: int, batch_and_space: BatchAndSpace
) -> Tensor:
    """Gradient with respect to the weight, (C, 1, K, K).

    Args:
        features_NC: the convolution's input, images of that height and width.
        gradient_MC: gradient of the output.
    """
    kernel_size = weight_C1KK.shape[-1]
    if batch_and_space[1:] == (1, 1):
        to_weight = torch.zeros_like(weight_C1KK)
        products_BC11 = as_features(features_NC, batch_and_space) * as_features(gradient_MC, batch_and_space)
        to_weight[:, 0, kernel_size // 2, kernel_size // 2] = products_BC11.sum((0, 2, 3))
        return to_weight
    out_space = after_stride(batch_and_space, stride)
    if kernel_size == 5 or batch_and_space[-1] <= 2:
        out_CKK = np.empty((len(weight_C1KK), kernel_size, kernel_size), np.float32)
        _sum_products(
            features_NC.reshape(*batch_and_space, -1),
            gradient_MC.reshape(*out_space, -1),
            kernel_size,
            stride,
            out_CKK,
        )
        return torch.from_numpy(out_CKK)[:, None]
    features_BCHW, gradient_BCYX = (
        as_features(features_NC, batch_and_space),
        as_features(gradient_MC, out_space),
    )
    return _torch_gradients(gradient_BCYX, features_BCHW, weight_C1KK, stride, of_input=False)


def _center_taps(weight_C1KK: Tensor) -> Floats:
    taps_CT: Floats = weight_C1KK.numpy().reshape(len(weight_C1KK), -1)
    return taps_CT[:, taps_CT.shape[1] // 2]


@compile_loop
def _scale(features_NC: Any, factor_C: Any) -> Any:
    """Multiplies each channel by its factor."""
    out_NC = make_matrix(*features_NC.shape)
    dense_C = factor_C.copy()
    for n in range(len(features_NC)):
        for c in range(features_NC.shape[1]):
            out_NC[n, c] = features_NC[n, c] * dense_C[c]
    return out_NC


def _torch_gradients(
    gradient_BCYX: Tensor, features_BCHW: Tensor, weight_C1KK: Tensor, stride: int, *, of_input: bool
) -> Tensor:
    padding = weight_C1KK.shape[-1] // 2
    gradients: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        gradient_BCYX,
        features_BCHW,
        weight_C1KK,
        None,
        [stride, stride],
        [padding, padding],
        [1, 1],
        False,
        [0, 0],
        len(weight_C1KK),
        [of_input, not of_input, False],
    )
    return gradients[0 if of_input else 1]


@compile_loop
def _add_row(sum_KC: Any, row_WC: Any, gradient_XC: Any, stride: int) -> None:
    """Adds the products of one row of the input with one row of the gradient."""
    for x in range(0, gradient_XC.shape[0], 4):
        for j in range(sum_KC.shape[0]):
            w = x * stride + j
            for c in range(_BLOCK):
                sum_KC[j, c] += (
                    row_WC[w, c] * gradient_XC[x, c]
                    + row_WC[w + stride, c] * gradient_XC[x + 1, c]
                    + row_WC[w + 2 * stride, c] * gradient_XC[x + 2, c]
                    + row_WC[w + 3 * stride, c] * gradient_XC[x + 3, c]
                )


@compile_loop
def _sum_products(
    features_BHWC: Any, gradient_BYXC: Any, kernel_size: int, stride: int, out_CKK: Any
) -> None:
    """Fills out_CKK with the gradient of the weight, one block of channels at a time."""
    num_images, height, width, num_channels = features_BHWC.shape
    out_height, out_width = gradient_BYXC.shape[1:3]
    padding = kernel_size // 2
    padded_out_width = -(-out_width // 4) * 4
    # The columns of padding stay zero in both buffers.
    row_WC = np.zeros(((padded_out_width - 1) * stride + kernel_size, _BLOCK), np.float32)
    gradient_YXC = np.zeros((out_height, padded_out_width, _BLOCK), np.float32)
    sum_KKC = np.empty((kernel_size, kernel_size, _BLOCK), np.float32)
    for first in range(0, num_channels, _BLOCK):
        size = min(_BLOCK, num_channels - first)
        sum_KKC[:] = 0
        for image in range(num_images):
            for y in range(out_height):
                for x in range(out_width):
                    for c in range(size):
                        gradient_YXC[y, x, c] = gradient_BYXC[image, y, x, first + c]
            for row in range(height):
                for column in range(width):
                    for c in range(size):
                        row_WC[column + padding, c] = features_BHWC[image, row, column, first + c]
                for i in range(kernel_size):
                    y = (row + padding - i) // stride
                    if y * stride == row + padding - i and 0 <= y < out_height:
                        _add_row(sum_KKC[i], row_WC, gradient_YXC[y], stride)
        for i in range(kernel_size):
            for j in range(kernel_size):
                for c in range(size):
                    out_CKK[first + c, i, j] = sum_KKC[i, j, c]
