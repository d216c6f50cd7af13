"""The block for GPUs, and what else is computed differently there, agree with the plain way on a CPU."""

import itertools

import pytest
import torch
from torch import Tensor

from nas.space.blocks import channels_last_mean
from nas.space.operators import Activation
from nas.supernet.expected_latency import sum_from_each
from nas.supernet.grouped_block import grouped_block
from nas.supernet.kernels import block_of
from nas.supernet.mixed_block import BlockFunction, MBConvShape, MBConvWeights, mixed_block

CPU = torch.device("cpu")
NUM_IN, NUM_REDUCED, SPACE = 6, 3, 5
# Kernel size, squeeze-and-excitation, active and maximum width.
PAPER_LIKE = [(3, False, 13, 16), (5, False, 20, 20), (3, True, 9, 12), (5, True, 8, 16), (3, True, 7, 7)]
CASES = {
    "both kernel sizes, with and without SE": PAPER_LIKE,
    "one kernel size": [PAPER_LIKE[0], PAPER_LIKE[2]],
    "all with SE": [PAPER_LIKE[3], PAPER_LIKE[2]],
    "none with SE": PAPER_LIKE[:2],
    "a single candidate": [PAPER_LIKE[2]],
}


def run(
    block: BlockFunction, case: str, shape: MBConvShape, *, trains: bool, is_mixed: bool = True
) -> list[Tensor]:
    """Output, and gradients of features, mixture weights and, if trained, all weights."""
    generator = torch.Generator().manual_seed(0)

    def draw(*size: int, requires_grad: bool = True) -> Tensor:
        drawn = torch.randn(size, generator=generator, dtype=torch.float64)
        return drawn.requires_grad_(requires_grad)

    num_out = NUM_IN if shape.keeps_shape else 8
    candidates = []
    for kernel_size, has_se, _, width in CASES[case]:
        sizes: list[tuple[int, ...]] = [
            (width, NUM_IN),
            (width, 1, kernel_size, kernel_size),
            (width, num_out),
        ]
        sizes += [(width, NUM_REDUCED), (NUM_REDUCED,), (width, NUM_REDUCED), (width,)] if has_se else []
        candidates.append(MBConvWeights(*(draw(*size, requires_grad=trains) for size in sizes)))
    features = draw(3, NUM_IN, SPACE, SPACE, requires_grad=False)
    features = features.contiguous(memory_format=torch.channels_last).requires_grad_()
    leaves = [features, *(leaf for each in candidates for leaf in each if leaf is not None and trains)]
    mix_weights_O = None
    if is_mixed:
        mix_weights_O = draw(len(candidates))
        leaves.append(mix_weights_O)
    widths = [width for _, _, width, _ in CASES[case]]
    out = block(features, candidates, widths, mix_weights_O, shape)
    direction = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view(out.shape)
    return [out.detach(), *torch.autograd.grad(out, leaves, direction)]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("activation", "stride", "trains"), itertools.product(["relu", "swish"], [1, 2], [True, False])
)
def test_a_grouped_block_agrees_with_the_plain_one_in_double_precision(
    case: str, activation: Activation, stride: int, trains: bool
) -> None:
    shape = MBConvShape(stride, activation, keeps_shape=stride == 1)
    is_mixed = case != "a single candidate"
    grouped, plain = (
        run(block, case, shape, trains=trains, is_mixed=is_mixed) for block in (grouped_block, mixed_block)
    )
    assert grouped[0].is_contiguous(memory_format=torch.channels_last)
    for one, other in zip(grouped, plain, strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-11)


def test_a_block_that_recomputes_gives_the_same_bits() -> None:
    shape = MBConvShape(1, "swish", keeps_shape=True)
    results = [
        run(block_of(kernels, CPU), "both kernel sizes, with and without SE", shape, trains=True)
        for kernels in ("torch", "recompute")
    ]
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_a_mean_whose_gradient_is_channels_last_is_the_plain_mean() -> None:
    features = torch.randn(2, 3, 4, 5, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    features.requires_grad_()
    means = channels_last_mean(features)
    assert torch.allclose(means, features.mean((2, 3)))
    (gradient,) = torch.autograd.grad(means.sum(), features)
    assert gradient.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(gradient, torch.full_like(gradient, 1 / 20))


def test_sums_from_each_element_on_are_those_of_a_reversed_cumulative_sum() -> None:
    values = torch.rand(4, 5, dtype=torch.float64)
    expected = [[float(row[first:].sum()) for first in range(5)] for row in values]
    assert torch.allclose(sum_from_each(values), torch.tensor(expected, dtype=torch.float64))
