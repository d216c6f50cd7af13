"""What the compiled loops take, and how they are compiled."""

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BN_EPS = 1e-5

compile_loop = numba.njit(fastmath={"reassoc", "contract"}, error_model="numpy", nogil=True, cache=True)
"""Sums may be reordered and contracted, but NaN and infinity come through."""


def runs_compiled(tensor: Tensor) -> bool:
    """Whether a tensor is of the kind that the compiled loops take: float32 on the CPU, to stay so."""
    is_float32 = tensor.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return tensor.device.type == "cpu" and is_float32


def as_pixels(features_BCHW: Tensor) -> NDArray[np.float32]:
    """Channels-last features as an array of pixels by channels; a view of them if they are dense."""
    num_channels = features_BCHW.shape[1]
    return features_BCHW.detach().permute(0, 2, 3, 1).reshape(-1, num_channels).numpy()


def as_features(pixels_NC: Tensor, batch_and_space: tuple[int, int, int]) -> Tensor:
    """The inverse of `as_pixels`, for a batch, a height and a width."""
    return pixels_NC.view(*batch_and_space, -1).permute(0, 3, 1, 2)
