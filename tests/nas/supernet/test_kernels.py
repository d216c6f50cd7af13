"""The compiled loops agree with the same block made of torch's own functions, in double precision."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nas.space.operators import Activation
from nas.supernet.compiled import expansion
from nas.supernet.compiled.compilation import multiply
from nas.supernet.compiled.depthwise import (
    depthwise_conv,
    depthwise_input_gradient,
    depthwise_weight_gradient,
)
from nas.supernet.mixed_block import MBConvShape, MBConvWeights, mixed_block

TOLERANCE = 3e-5
NUM_INPUT_CHANNELS, NUM_REDUCED_CHANNELS = 6, 3
WIDTHS, MAX_WIDTHS = (13, 20), (16, 20)


def draw_weights(width: int, num_out_channels: int, kernel_size: int, *, has_se: bool) -> list[Tensor | None]:
    shapes: list[tuple[int, ...]] = [
        (width, NUM_INPUT_CHANNELS),
        (width, 1, kernel_size, kernel_size),
        (width, num_out_channels),
    ]
    if not has_se:
        return [*(torch.randn(shape) for shape in shapes), None, None, None, None]
    reduced = NUM_REDUCED_CHANNELS
    shapes += [(width, reduced), (reduced,), (width, reduced), (width,)]
    return [torch.randn(shape) for shape in shapes]


def run_block(
    block: object, dtype: torch.dtype, tensors: list[list[Tensor | None]], *, trains: bool, shape: MBConvShape
) -> list[Tensor]:
    """Output, and gradients of features, mixture weights and, if trained, all weights."""
    resolution = 5 if shape.stride == 2 else 4
    features = torch.randn(3, NUM_INPUT_CHANNELS, resolution, resolution) + 0.5
    features = features.to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    mix_weights_O = torch.tensor([0.3, 0.7], dtype=dtype, requires_grad=True)
    leaves = [
        [None if t is None else t.detach().to(dtype).clone().requires_grad_(trains) for t in each]
        for each in tensors
    ]
    candidates = [MBConvWeights(*each) for each in leaves]  # type: ignore[arg-type]
    out = block(features, candidates, WIDTHS, mix_weights_O, shape)  # type: ignore[operator]
    out.backward(torch.linspace(-1, 1, out.numel()).view(out.shape).to(dtype))
    gradients = [features.grad, mix_weights_O.grad]
    if trains:
        gradients += [leaf.grad for each in leaves for leaf in each if leaf is not None]
    return [out.detach(), *(gradient for gradient in gradients if gradient is not None)]


def compose_active(
    features: Tensor, candidates: list[MBConvWeights], widths: tuple[int, ...], *others: Any
) -> Tensor:
    """The block of the active channels, made of torch's own functions."""
    active = [weights.first(width) for weights, width in zip(candidates, widths, strict=True)]
    return _compose(features, active, *others)


WAYS = {
    "plain": {"_FOLD_RATIO": 0},
    "folded": {},
    "folded, in chunks of one image": {"_CHUNK_BYTES": 1},
    "folded, the last chunk shorter": {"_CHUNK_BYTES": 2 * 20 * 16 * 4},
    "folded, in chunks that are kept": {"_CHUNK_BYTES": 1, "_MAX_RECOMPUTED_CHANNELS": 0},
}
"""Ways of expanding, which sizes of layers choose among."""


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("trains", [True, False])
@pytest.mark.parametrize(
    ("activation", "kernel_size", "stride"), itertools.product(["relu", "swish"], [3, 5], [1, 2])
)
def test_a_compiled_block_agrees_with_the_composed_one_in_double_precision(
    activation: Activation,
    kernel_size: int,
    stride: int,
    trains: bool,
    way: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in WAYS[way].items():
        monkeypatch.setattr(expansion, name, value)
    keeps_shape = stride == 1
    num_out_channels = NUM_INPUT_CHANNELS if keeps_shape else 8
    shape = MBConvShape(stride, activation, keeps_shape)
    torch.manual_seed(0)
    tensors = [
        draw_weights(MAX_WIDTHS[0], num_out_channels, kernel_size, has_se=False),
        draw_weights(MAX_WIDTHS[1], num_out_channels, kernel_size, has_se=True),
    ]
    results = []
    for block, dtype in ((mixed_block, torch.float32), (compose_active, torch.float64)):
        torch.manual_seed(1)
        results.append(run_block(block, dtype, tensors, trains=trains, shape=shape))
    for compiled, composed in zip(*results, strict=True):
        error = (compiled - composed).abs().max() / composed.abs().max().clamp_min(1e-3)
        assert error < TOLERANCE


@pytest.mark.parametrize(("is_a_turned", "is_b_turned"), itertools.product([False, True], repeat=2))
@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_the_matrix_product_of_compiled_loops_agrees_with_numpy(
    is_a_turned: bool, is_b_turned: bool, beta: float
) -> None:
    random = np.random.default_rng(0)
    a, b = (random.standard_normal(shape).astype(np.float32) for shape in ((5, 7), (7, 3)))
    out = random.standard_normal((5, 3)).astype(np.float32)
    expected = -0.5 * a @ b + beta * out
    turned = [
        np.ascontiguousarray(x.T) if is_turned else x for x, is_turned in ((a, is_a_turned), (b, is_b_turned))
    ]
    multiply(turned[0], is_a_turned, turned[1], is_b_turned, np.float32(-0.5), np.float32(beta), out)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


def test_features_and_gradients_may_have_any_strides() -> None:
    torch.manual_seed(0)
    weights = MBConvWeights(*draw_weights(12, 8, 3, has_se=True))  # type: ignore[arg-type]
    features, gradient = torch.randn(1, NUM_INPUT_CHANNELS, 4, 4), torch.randn(1, 8, 4, 4)
    results = []
    for arrange in (to_channels_last, every_second_number):
        leaf = arrange(features).requires_grad_()
        out = mixed_block(leaf, [weights], [12], None, MBConvShape(1, "relu", keeps_shape=False))
        (to_features,) = torch.autograd.grad(out, leaf, arrange(gradient))
        results.append((out, to_features))
    for of_dense, of_strided in zip(*results, strict=True):
        torch.testing.assert_close(of_dense, of_strided)


def to_channels_last(features: Tensor) -> Tensor:
    return features.contiguous(memory_format=torch.channels_last)


def every_second_number(features: Tensor) -> Tensor:
    """The same, between numbers that are no part of it."""
    return torch.stack([features, torch.full_like(features, torch.nan)], dim=-1)[..., 0]


@pytest.mark.parametrize("resolution", [1, 2, 3, 7, 14])
@pytest.mark.parametrize(("kernel_size", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
@pytest.mark.parametrize("num_channels", [3, 130])
def test_depthwise_gradients_agree_with_autograd(
    num_channels: int, kernel_size: int, stride: int, resolution: int
) -> None:
    torch.manual_seed(0)
    features = torch.randn(2, num_channels, resolution, resolution)
    features = features.contiguous(memory_format=torch.channels_last)
    weight = torch.randn(num_channels, 1, kernel_size, kernel_size)
    leaves = [features.double().requires_grad_(), weight.double().requires_grad_()]
    expected = F.conv2d(*leaves, None, stride, kernel_size // 2, 1, num_channels)
    gradient = torch.randn(expected.shape).contiguous(memory_format=torch.channels_last)
    to_features, to_weight = torch.autograd.grad(expected, leaves, gradient.double())

    torch.testing.assert_close(depthwise_conv(features, weight, stride).double(), expected, rtol=0, atol=1e-4)
    ours = depthwise_input_gradient(gradient, weight, stride, features.shape)
    torch.testing.assert_close(ours.double(), to_features, rtol=0, atol=1e-4)
    ours = depthwise_weight_gradient(features, gradient, weight, stride)
    torch.testing.assert_close(ours.double(), to_weight, rtol=0, atol=1e-3)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("fold_ratio", [0, 8])
def test_what_is_not_finite_comes_through_the_compiled_loops(
    bad: float, fold_ratio: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expansion, "_FOLD_RATIO", fold_ratio)
    torch.manual_seed(0)
    weights = MBConvWeights(*draw_weights(12, 8, 5, has_se=True))  # type: ignore[arg-type]
    features = torch.randn(2, NUM_INPUT_CHANNELS, 4, 4).contiguous(memory_format=torch.channels_last)
    features[0, 0, 0, 0] = bad
    out = mixed_block(features, [weights], [12], None, MBConvShape(1, "swish", keeps_shape=False))
    assert out.isnan().any()
