"""Channels of a candidate: which are active, what happens to the others, what follows a channel."""

import copy

import pytest
import torch
from torch import Tensor

from nas.supernet.candidate import Candidate
from nas.supernet.steps import SearchSteps
from tests.nas.search.test_search import TABLE, labelled_images, make_config
from tests.support.tiny import OPS, TINY, make_supernet

LAYER = 3
"""A layer that keeps the shape, 6 to 6 channels."""

SOME_OPS = pytest.mark.parametrize("op", [0, 3, 7], ids=lambda op: OPS[op].name)


@pytest.fixture
def steps() -> SearchSteps:
    """A search that has momentum already."""
    steps = SearchSteps(make_supernet(TINY, "sink"), make_config(), TABLE)
    for seed in range(8):
        train(steps, op=seed, seed=seed)
    return steps


def train(steps: SearchSteps, *, op: int, seed: int) -> None:
    steps.weight_step(*labelled_images(seed), [[op] * len(TINY.layers)])


def l1_norms(candidate: Candidate) -> Tensor:
    return candidate.depthwise.detach().abs().sum((1, 2, 3))


def rows(tensor: Tensor) -> set[tuple[float, ...]]:
    return {tuple(row.flatten().tolist()) for row in tensor.detach()}


@SOME_OPS
def test_the_active_channels_are_those_with_the_largest_l1_norm_of_depthwise_weights(
    steps: SearchSteps, op: int
) -> None:
    candidate = steps.supernet.candidate(LAYER, op)
    for width in (len(candidate.depthwise) // 2, len(candidate.depthwise) - 3):
        largest_C = l1_norms(candidate).topk(width).indices
        expected = rows(candidate.depthwise[largest_C])
        candidate.set_width(width, steps.weight_optimizer)
        assert candidate.width == width
        assert rows(candidate.depthwise[:width]) == expected


@SOME_OPS
def test_reordering_moves_all_weights_and_the_momentum_of_a_channel_together(
    steps: SearchSteps, op: int
) -> None:
    candidate = steps.supernet.candidate(LAYER, op)

    def channels() -> set[tuple[float, ...]]:
        parts = []
        for parameter in candidate.channel_parameters():
            momentum = steps.weight_optimizer.state[parameter]["momentum_buffer"]
            parts += [parameter.detach().flatten(1) if parameter.dim() > 1 else parameter.detach()[:, None]]
            parts += [momentum.flatten(1) if momentum.dim() > 1 else momentum[:, None]]
        return rows(torch.cat(parts, dim=1))

    before, order_before = channels(), candidate.depthwise.detach().clone()
    candidate.set_width(candidate.width - 2, steps.weight_optimizer)
    assert not torch.equal(candidate.depthwise, order_before)
    assert channels() == before


@SOME_OPS
def test_reordering_changes_neither_the_function_nor_its_training(steps: SearchSteps, op: int) -> None:
    """At the maximum width all channels are active, whatever their order."""
    steps.supernet.candidate(LAYER, op).width = len(steps.supernet.candidate(LAYER, op).depthwise)
    reordered = copy.deepcopy(steps)
    candidate = reordered.supernet.candidate(LAYER, op)
    candidate.set_width(candidate.width, reordered.weight_optimizer)
    path = [op] * len(TINY.layers)
    for seed in range(3):
        images_BCHW, labels_B = labelled_images(seed)
        with torch.no_grad():
            ours, theirs = (each.supernet(images_BCHW, path) for each in (reordered, steps))
        assert (ours - theirs).norm() < 1e-4 * theirs.norm()
        for each in (reordered, steps):
            each.weight_step(images_BCHW, labels_B, [path])


@SOME_OPS
def test_the_weights_of_channels_that_are_switched_off_are_kept(op: int) -> None:
    config = make_config(weight_decay=0.0)
    steps = SearchSteps(make_supernet(TINY, "sink"), config, TABLE)
    candidate = steps.supernet.candidate(LAYER, op)
    candidate.set_width(candidate.width - 2, steps.weight_optimizer)
    width = candidate.width
    before = [parameter.detach().clone() for parameter in candidate.channel_parameters()]
    for seed in range(3):
        train(steps, op=op, seed=seed)
    for old, parameter in zip(before, candidate.channel_parameters(), strict=True):
        assert torch.equal(parameter[width:], old[width:])
        assert not torch.equal(parameter[:width], old[:width])


@SOME_OPS
def test_channels_that_were_switched_off_come_back_as_they_were(steps: SearchSteps, op: int) -> None:
    candidate = steps.supernet.candidate(LAYER, op)
    highest, lowest = len(candidate.depthwise), len(candidate.depthwise) // 2
    before = rows(candidate.depthwise)
    candidate.set_width(lowest, steps.weight_optimizer)
    switched_off = rows(candidate.depthwise[lowest:])
    candidate.set_width(highest, steps.weight_optimizer)
    assert rows(candidate.depthwise) == before
    assert switched_off < rows(candidate.depthwise[: candidate.width])


def test_a_channel_that_outgrew_others_takes_their_place(steps: SearchSteps) -> None:
    candidate = steps.supernet.candidate(LAYER, 0)
    candidate.set_width(len(candidate.depthwise) // 2, steps.weight_optimizer)
    with torch.no_grad():
        candidate.depthwise[-1] *= 100
    comeback = rows(candidate.depthwise[-1:])
    candidate.set_width(candidate.width + 1, steps.weight_optimizer)
    assert comeback <= rows(candidate.depthwise[: candidate.width])


def test_widths_that_a_scaling_leaves_alone_keep_their_channels(steps: SearchSteps) -> None:
    supernet = steps.supernet
    before = {name: weight.detach().clone() for name, weight in supernet.named_parameters()}
    supernet.set_derived_widths(supernet.derive(), steps.weight_optimizer)
    for name, weight in supernet.named_parameters():
        assert torch.equal(weight, before[name])
