"""What a training step asks of a GPU, counted on one that computes nothing."""

import pytest
import torch

from nas.config import TrainConfig
from nas.foundation.world import ALONE
from nas.space.derived_network import DerivedNetwork
from nas.space.macro_space import get_space
from nas.training.training import Training
from tests.support.fake_gpu import GPU, Trace, fake_gpu, to_gpu, tracing
from tests.support.tiny import full_depth_architecture

BATCH_SIZE, RESOLUTION = 16, 224


def trace_training_step(*, mixed_precision: bool) -> Trace:
    """A step of the widest network at full depth of `paper`, all with squeeze-and-excitation."""
    space = get_space("paper")
    config = TrainConfig(architecture="tf-nas-a", mixed_precision=mixed_precision)
    training = Training.__new__(Training)
    training.config, training.world, training.device, training._average = config, ALONE, GPU, None
    with fake_gpu():
        network = DerivedNetwork(full_depth_architecture(space, space.ops[7]), 100, drop_connect=0.2)
        training.network = to_gpu(network)
        training._optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, foreach=True)
        images_BCHW = torch.randn(BATCH_SIZE, 3, RESOLUTION, RESOLUTION, device=GPU)
        images_BCHW = images_BCHW.contiguous(memory_format=torch.channels_last)
        labels_B = torch.zeros(BATCH_SIZE, dtype=torch.int64, device=GPU)
        with tracing(BATCH_SIZE) as trace:
            training._step(network, images_BCHW, labels_B, BATCH_SIZE)
    return trace


@pytest.fixture(scope="module")
def float32() -> Trace:
    return trace_training_step(mixed_precision=False)


@pytest.fixture(scope="module")
def bfloat16() -> Trace:
    return trace_training_step(mixed_precision=True)


def test_a_training_step_neither_waits_nor_leaves_channels_last(float32: Trace, bfloat16: Trace) -> None:
    for trace in (float32, bfloat16):
        assert (trace.waits, trace.num_uploads) == ([], 0)
        assert trace.other_layouts == []


def test_a_training_step_launches_no_more_than_it_did(float32: Trace, bfloat16: Trace) -> None:
    assert float32.num_forward <= 722
    assert float32.num_backward <= 438
    assert bfloat16.num_forward <= 860
    assert bfloat16.num_backward <= 517
    # In float32 those of drop-connect's masks, in bfloat16 of each weight and its gradient as well.
    assert float32.num_casts <= 12
    assert bfloat16.num_casts <= 287


def test_activations_of_a_training_step_fit_common_cards(float32: Trace, bfloat16: Trace) -> None:
    assert float32.saved_bytes < 1.31 * 2**30
    assert bfloat16.saved_bytes < 0.68 * 2**30
