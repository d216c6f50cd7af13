"""Compiled blocks agree with plain ones in double precision, and are as safe to differentiate."""

import copy
import itertools
import sys
from typing import Any

import numpy as np
import pytest
import torch
from numba.core.dispatcher import Dispatcher
from torch import Tensor
from torch.nn import functional as F

from nas.space.operators import Activation
from nas.supernet.compiled import expansion
from nas.supernet.compiled.compiled_block import CompiledBlock
from nas.supernet.compiled.depthwise_convolution import (
    after_stride,
    as_features,
    as_pixels,
    depthwise_conv,
    depthwise_input_gradient,
    depthwise_weight_gradient,
)
from nas.supernet.compiled.matrix_product import multiply
from nas.supernet.compiled.normalization_loops import mean_over_pixels
from nas.supernet.compiled.trial_run import check_compiled_block
from nas.supernet.mixed_block import BlockFunction, MBConvShape, MBConvWeights, mixed_block

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
    block: BlockFunction,
    dtype: torch.dtype,
    tensors: list[list[Tensor | None]],
    *,
    trains: bool,
    shape: MBConvShape,
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
    out = block(features, candidates, WIDTHS, mix_weights_O, shape)
    out.backward(torch.linspace(-1, 1, out.numel()).view(out.shape).to(dtype))
    gradients = [features.grad, mix_weights_O.grad]
    if trains:
        gradients += [leaf.grad for each in leaves for leaf in each if leaf is not None]
    return [out.detach(), *(gradient for gradient in gradients if gradient is not None)]


WAYS = {
    "whole": {"_FOLD_RATIO": 0},
    "folded": {},
    "folded, in chunks of one image": {"_CHUNK_BYTES": 1},
    "folded, the last chunk shorter": {"_CHUNK_BYTES": 2 * 20 * 16 * 4},
    "folded, in chunks that are kept": {"_CHUNK_BYTES": 1, "_MAX_RECOMPUTED_CHANNELS": 0},
}
"""Ways of expanding; the sizes of a layer choose one."""


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("trains", [True, False])
@pytest.mark.parametrize(
    ("activation", "kernel_size", "stride"), itertools.product(["relu", "swish"], [3, 5], [1, 2])
)
def test_a_compiled_block_agrees_with_the_plain_one_in_double_precision(
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
    for block, dtype in ((CompiledBlock(), torch.float32), (mixed_block, torch.float64)):
        torch.manual_seed(1)
        results.append(run_block(block, dtype, tensors, trains=trains, shape=shape))
    for compiled, plain in zip(*results, strict=True):
        error = (compiled - plain).abs().max() / plain.abs().max().clamp_min(1e-3)
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
        out = CompiledBlock()(leaf, [weights], [12], None, MBConvShape(1, "relu", keeps_shape=False))
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

    space = (2, resolution, resolution)
    inputs = as_pixels(features)
    ours = as_features(depthwise_conv(inputs, weight, stride, space), after_stride(space, stride))
    torch.testing.assert_close(ours.double(), expected, rtol=0, atol=1e-4)
    ours = as_features(depthwise_input_gradient(as_pixels(gradient), weight, stride, space), space)
    torch.testing.assert_close(ours.double(), to_features, rtol=0, atol=1e-4)
    ours = depthwise_weight_gradient(inputs, as_pixels(gradient), weight, stride, space)
    torch.testing.assert_close(ours.double(), to_weight, rtol=0, atol=1e-3)


def test_pixels_and_features_are_views_of_each_other_where_they_can_be() -> None:
    features = to_channels_last(torch.randn(2, 5, 3, 4))
    pixels = as_pixels(features)
    assert pixels.shape == (24, 5)
    assert pixels.ctypes.data == features.data_ptr()
    assert torch.equal(as_features(pixels, (2, 3, 4)), features)
    assert np.array_equal(as_pixels(features.contiguous()), pixels)


def test_the_mean_over_pixels_is_that_of_double_precision() -> None:
    pixels = np.random.default_rng(0).standard_normal((3001, 37)).astype(np.float32) + np.float32(5)
    expected = pixels.mean(0, dtype=np.float64).astype(np.float32)
    assert np.array_equal(mean_over_pixels(pixels), expected)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("fold_ratio", [0, 8])
def test_nan_and_infinity_propagate_through_the_compiled_loops(
    bad: float, fold_ratio: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expansion, "_FOLD_RATIO", fold_ratio)
    torch.manual_seed(0)
    weights = MBConvWeights(*draw_weights(12, 8, 5, has_se=True))  # type: ignore[arg-type]
    features = torch.randn(2, NUM_INPUT_CHANNELS, 4, 4).contiguous(memory_format=torch.channels_last)
    features[0, 0, 0, 0] = bad
    out = CompiledBlock()(features, [weights], [12], None, MBConvShape(1, "swish", keeps_shape=False))
    assert out.isnan().any()


# Autograd: each case is run on both blocks, which must behave alike.


@pytest.fixture(params=[CompiledBlock(), mixed_block])
def block(request: pytest.FixtureRequest) -> BlockFunction:
    return request.param  # type: ignore[no-any-return]


class Case:
    """A block of one candidate, and its leaves; 2 images of 4x4 pixels where nothing else is asked for."""

    def __init__(self, batch: int = 2, resolution: int = 4, stride: int = 1) -> None:
        torch.manual_seed(0)
        weights = draw_weights(12, NUM_INPUT_CHANNELS, 3, has_se=True)
        self.weights = MBConvWeights(*(t if t is None else t.requires_grad_() for t in weights))  # type: ignore[arg-type]
        features = torch.randn(batch, NUM_INPUT_CHANNELS, resolution, resolution)
        self.features = to_channels_last(features).requires_grad_()
        self.width = 10
        self.mix_weights_O = torch.tensor([0.7], requires_grad=True)
        self.shape = MBConvShape(stride, "swish", keeps_shape=stride == 1)

    @property
    def leaves(self) -> list[Tensor]:
        return [self.features, self.mix_weights_O, *(t for t in self.weights if t is not None)]

    def run(self, block: BlockFunction) -> Tensor:
        return block(self.features, [self.weights], [self.width], self.mix_weights_O, self.shape)


@pytest.mark.parametrize("name", ["expansion_WI", "depthwise_W1KK", "projection_WP", "se_expand_WR", None])
def test_a_change_in_place_before_backward_is_an_error(block: BlockFunction, name: str | None) -> None:
    case = Case()
    out = case.run(block)
    with torch.no_grad():
        (getattr(case.weights, name) if name else case.mix_weights_O).add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_a_retained_graph_gives_the_same_gradients_again(block: BlockFunction) -> None:
    case = Case()
    out = case.run(block)
    gradient = torch.linspace(-1, 1, out.numel()).view(out.shape)
    first, second = (torch.autograd.grad(out, case.leaves, gradient, retain_graph=True) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


def test_a_second_backward_without_a_retained_graph_is_an_error(block: BlockFunction) -> None:
    out = Case().run(block).square().sum()
    out.backward()
    with pytest.raises(RuntimeError, match="second time"):
        out.backward()


@pytest.mark.parametrize("change", ["width", "in place", "data", "copy"])
def test_what_a_block_keeps_of_weights_follows_them(change: str) -> None:
    case, block = Case(), CompiledBlock()
    case.run(block)
    with torch.no_grad():
        if change == "width":
            case.width = 7
        elif change == "in place":
            case.weights.depthwise_W1KK.mul_(2)
        elif change == "data":
            assert case.weights.se_expand_WR is not None
            case.weights.se_expand_WR.data = case.weights.se_expand_WR + 1
        else:
            case, block = copy.deepcopy((case, block))
            case.weights.projection_WP.add_(1)
    kept, fresh = case.run(block), case.run(CompiledBlock())
    assert torch.equal(kept, fresh)
    gradients = (torch.autograd.grad(each.square().sum(), case.leaves) for each in (kept, fresh))
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)


def test_an_empty_batch_gives_an_empty_output(block: BlockFunction) -> None:
    case = Case(batch=0)
    out = case.run(block)
    assert out.shape == (0, NUM_INPUT_CHANNELS, 4, 4)
    out.sum().backward()


@pytest.mark.parametrize(("resolution", "stride"), [(1, 1), (2, 2)])
def test_one_value_per_channel_is_an_error(block: BlockFunction, resolution: int, stride: int) -> None:
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        Case(batch=1, resolution=resolution, stride=stride).run(block)


def test_a_block_can_be_compiled_by_torch(block: BlockFunction) -> None:
    case = Case()
    run = torch.compile(lambda: case.run(block), backend="eager", fullgraph=True)
    expected = torch.autograd.grad(case.run(mixed_block).square().sum(), case.leaves)
    for one, other in zip(torch.autograd.grad(run().square().sum(), case.leaves), expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("way", ["float64", "autocast", "another device"])
def test_the_plain_block_computes_what_the_loops_cannot(way: str) -> None:
    case = Case()
    if way != "autocast":
        target: Any = torch.float64 if way == "float64" else "meta"
        case.features, case.mix_weights_O = case.features.to(target), case.mix_weights_O.to(target)
        case.weights = MBConvWeights(*(t if t is None else t.to(target) for t in case.weights))
    with torch.autocast("cpu", torch.bfloat16, enabled=way == "autocast"):
        ours, plain = case.run(CompiledBlock()), case.run(mixed_block)
    assert (ours.dtype, ours.device) == (plain.dtype, plain.device)
    assert way == "another device" or torch.equal(ours, plain)


def test_the_trial_run_compiles_all_that_blocks_need() -> None:
    """Else a failure to compile would show in the middle of a step."""
    check_compiled_block()
    dispatchers = [
        value
        for name, module in sys.modules.items()
        if name.startswith("nas.supernet.compiled.")
        for value in vars(module).values()
        if isinstance(value, Dispatcher)
    ]
    before = [len(dispatcher.signatures) for dispatcher in dispatchers]
    for resolution, stride in ((1, 1), (2, 1), (4, 2), (5, 1)):
        case = Case(8, resolution, stride)
        torch.autograd.grad(case.run(CompiledBlock()).sum(), case.leaves)
        for tensor in case.leaves[2:]:
            tensor.requires_grad_(False)
        torch.autograd.grad(case.run(CompiledBlock()).sum(), case.leaves[:2])
    assert sum(before) > 10
    assert [len(dispatcher.signatures) for dispatcher in dispatchers] == before
