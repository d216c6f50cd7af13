"""What the compiled loops take, and how they are compiled."""

import numba
import torch
from torch import Tensor

BN_EPS = 1e-5

compile_loop = numba.njit(fastmath={"reassoc", "contract"}, error_model="numpy", nogil=True, cache=True)
"""Sums may be reordered and contracted, but NaN and infinity come through."""


def runs_compiled(tensor: Tensor) -> bool:
    """Whether a tensor is of the kind that the compiled loops take: float32 on the CPU, to stay so."""
    is_float32 = tensor.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return tensor.device.type == "cpu" and is_float32


def as_pixels(features_BCHW: Tensor) -> Tensor:
    """Channels-last features as pixels by channels; a view of them if they are dense."""
    return features_BCHW.permute(0, 2, 3, 1).reshape(-1, features_BCHW.shape[1])


def as_features(pixels_NC: Tensor, batch_and_space: tuple[int, int, int]) -> Tensor:
    """The inverse of `as_pixels`, for a batch, a height and a width."""
    return pixels_NC.view(*batch_and_space, -1).permute(0, 3, 1, 2)
