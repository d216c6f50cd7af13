"""Depthwise convolutions with same padding, and their gradients.

Shapes: B batch, C channels, H W space (input), Y X space (output), K kernel size.

On the CPU oneDNN computes the gradient of the weight many times slower than the forward pass: for
kernel size 5 at every resolution, for kernel size 3 at the smallest ones. The loop here keeps a block
of channels in the first-level cache and sums four output columns at once for each row of taps. At one
pixel, only the center tap of a kernel meets an input.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nas.supernet.compiled.loop_compiler import compile_loop

_BLOCK = 128
"""Channels per block; the rows and sums of one block fit in a first-level cache of 32 KiB."""


def depthwise_conv(features_BCHW: Tensor, weight_C1KK: Tensor, stride: int) -> Tensor:
    """The convolution of channels-last features."""
    if features_BCHW.shape[2:] == (1, 1):
        return features_BCHW * _center_tap(weight_C1KK)
    padding, num_channels = weight_C1KK.shape[-1] // 2, len(weight_C1KK)
    return F.conv2d(features_BCHW, weight_C1KK, None, stride, padding, 1, num_channels)


def depthwise_input_gradient(
    gradient_BCYX: Tensor, weight_C1KK: Tensor, stride: int, batch_and_space: tuple[int, int, int]
) -> Tensor:
    """Gradient with respect to the input, of which only batch, height and width are needed."""
    batch, *space = batch_and_space
    if space == [1, 1]:
        return gradient_BCYX * _center_tap(weight_C1KK)
    if stride == 1:
        # The same convolution with reversed taps, which oneDNN computes faster for kernel size 5.
        return depthwise_conv(gradient_BCYX, weight_C1KK.flip(2, 3), stride)
    # Memory that is never touched costs nothing.
    like_BCHW = torch.empty(
        (batch, len(weight_C1KK), *space), dtype=torch.float32, device="cpu", memory_format=torch.channels_last
    )
    return _torch_gradients(gradient_BCYX, like_BCHW, weight_C1KK, stride, of_input=True)


def depthwise_weight_gradient(
    features_BCHW: Tensor, gradient_BCYX: Tensor, weight_C1KK: Tensor, stride: int
) -> Tensor:
    """Gradient with respect to the weight, (C, 1, K, K).

    Args:
        features_BCHW: the convolution's input, channels last.
        gradient_BCYX: gradient of the output, channels last.
    """
    kernel_size = weight_C1KK.shape[-1]
    if features_BCHW.shape[2:] == (1, 1):
        to_weight = torch.zeros_like(weight_C1KK)
        to_weight[:, 0, kernel_size // 2, kernel_size // 2] = (features_BCHW * gradient_BCYX).sum((0, 2, 3))
        return to_weight
    if kernel_size == 5 or features_BCHW.shape[-1] <= 2:
        out_CKK = np.empty((len(weight_C1KK), kernel_size, kernel_size), np.float32)
        _sum_products(
            features_BCHW.permute(0, 2, 3, 1).contiguous().numpy(),
            gradient_BCYX.permute(0, 2, 3, 1).contiguous().numpy(),
            kernel_size,
            stride,
            out_CKK,
        )
        return torch.from_numpy(out_CKK)[:, None]
    return _torch_gradients(gradient_BCYX, features_BCHW, weight_C1KK, stride, of_input=False)


def _center_tap(weight_C1KK: Tensor) -> Tensor:
    center = weight_C1KK.shape[-1] // 2
    return weight_C1KK[:, 0, center, center, None, None]


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
