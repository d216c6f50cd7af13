"""What the steps of a search ask of a GPU, counted on one that computes nothing.

The counts are bounds: who raises one has made a step slower, or should say why not. Operations are those that
torch dispatches; each launches one kernel at least.
"""

from collections.abc import Sequence
from typing import NamedTuple

import pytest
import torch

from nas.config import SearchConfig
from nas.data.augmentation import draw_change, normalize
from nas.foundation.device import upload
from nas.space.macro_space import get_space
from nas.supernet.kernels import block_of
from nas.supernet.mixed_block import BlockFunction, mixed_block
from nas.supernet.steps import SearchSteps
from nas.supernet.supernet import Supernet
from tests.support.fake_gpu import GPU, Trace, fake_gpu, to_gpu, tracing
from tests.support.tiny import make_dense_table

BATCH_SIZE = 32
GIB = 2**30


class Traces(NamedTuple):
    arch_step: Trace
    weight_step: Trace


def trace_steps(
    space_name: str,
    *,
    mixed_precision: bool,
    block: BlockFunction | None = None,
    depth: str = "sink",
    steps: Sequence[str] = Traces._fields,
) -> Traces:
    """The steps of a search on two paths, at the space's resolution."""
    space = get_space(space_name)
    table = make_dense_table(space)
    config = SearchConfig(
        space=space_name, target_latency_ms=10.0, mixed_precision=mixed_precision, depth=depth
    )
    traces = Traces(Trace(), Trace())
    with fake_gpu():
        supernet = to_gpu(Supernet(space, 100, config.depth))
        supernet.set_blocks(lambda: block or block_of("torch", GPU))
        search_steps = SearchSteps(supernet, config, table)
        # Latencies are copied once per widening, not once per step.
        supernet.expected_latency_ms(table)
        images_BCHW = torch.randn(BATCH_SIZE, 3, space.resolution, space.resolution, device=GPU)
        images_BCHW = images_BCHW.contiguous(memory_format=torch.channels_last)
        labels_B = torch.zeros(BATCH_SIZE, dtype=torch.int64, device=GPU)
        noise = torch.Generator()
        if "arch_step" in steps:
            with tracing(BATCH_SIZE) as trace:
                search_steps.arch_step(images_BCHW, labels_B, 5.0, noise)
            traces = traces._replace(arch_step=trace)
        if "weight_step" in steps:
            with tracing(BATCH_SIZE) as trace:
                # The widest operators of both kinds.
                paths = [[op] * len(space.layers) for op in (3, 7)]
                search_steps.weight_step(images_BCHW, labels_B, paths)
            traces = traces._replace(weight_step=trace)
    return traces


@pytest.fixture(scope="module")
def float32() -> Traces:
    return trace_steps("paper", mixed_precision=False)


@pytest.fixture(scope="module")
def bfloat16() -> Traces:
    return trace_steps("paper", mixed_precision=True)


@pytest.fixture(scope="module")
def micro() -> Traces:
    return trace_steps("micro", mixed_precision=True, depth="skip")


@pytest.fixture(params=["float32", "bfloat16", "micro"])
def traces(request: pytest.FixtureRequest) -> Traces:
    found: Traces = request.getfixturevalue(request.param)
    return found


def test_no_step_waits_for_the_gpu(traces: Traces) -> None:
    for trace in traces:
        assert trace.waits == []
    # Gumbel noise is drawn on the host, so that a seed means the same on every device.
    assert traces.arch_step.num_uploads == 1
    assert traces.weight_step.num_uploads == 0


def test_all_features_are_channels_last_forward_and_backward(traces: Traces) -> None:
    for trace in traces:
        assert trace.other_layouts == []


def test_deterministic_algorithms_refuse_no_operation_of_a_step(traces: Traces) -> None:
    for trace in traces:
        assert trace.refused_by_determinism == []


@pytest.mark.parametrize(
    ("precision", "step", "max_forward", "max_backward"),
    [
        ("float32", "arch_step", 943, 1068),
        ("float32", "weight_step", 568, 790),
        ("bfloat16", "arch_step", 955, 1086),
        ("bfloat16", "weight_step", 584, 805),
        ("micro", "arch_step", 539, 534),
        ("micro", "weight_step", 319, 444),
    ],
)
def test_a_step_launches_no_more_than_it_did(
    precision: str, step: str, max_forward: int, max_backward: int, request: pytest.FixtureRequest
) -> None:
    trace = getattr(request.getfixturevalue(precision), step)
    assert trace.num_forward <= max_forward
    assert trace.num_backward <= max_backward


def test_mixed_precision_casts_the_weights_of_a_layer_at_once(float32: Traces, bfloat16: Traces) -> None:
    assert float32.arch_step.num_casts == 0
    assert bfloat16.arch_step.num_casts <= 48
    assert bfloat16.weight_step.num_casts <= 105


def test_activations_of_a_step_fit_common_cards(float32: Traces, bfloat16: Traces) -> None:
    assert float32.arch_step.saved_bytes < 9.9 * GIB
    assert bfloat16.arch_step.saved_bytes < 5.0 * GIB
    assert float32.weight_step.saved_bytes < 4.7 * GIB
    assert bfloat16.weight_step.saved_bytes < 2.4 * GIB


def test_recomputing_keeps_a_fiftieth_of_the_activations_and_runs_each_layer_twice(float32: Traces) -> None:
    trace = trace_steps(
        "paper", mixed_precision=False, block=block_of("recompute", GPU), steps=["arch_step"]
    ).arch_step
    assert trace.saved_bytes < float32.arch_step.saved_bytes / 50
    assert trace.waits == []
    assert trace.num_backward <= 1860


def test_the_plain_block_would_launch_twice_as_much(micro: Traces) -> None:
    plain = trace_steps(
        "micro", mixed_precision=True, block=mixed_block, depth="skip", steps=["arch_step"]
    ).arch_step
    grouped = micro.arch_step
    assert plain.num_forward > 2.5 * grouped.num_forward
    assert plain.num_backward > 2 * grouped.num_backward
    assert plain.num_casts > 10 * grouped.num_casts


@pytest.mark.parametrize("augmentation", ["paper", "crop_flip"])
def test_images_are_copied_and_changed_without_a_wait(augmentation: str) -> None:
    change = draw_change(augmentation, BATCH_SIZE, 28, torch.Generator())  # type: ignore[arg-type]
    assert change is not None
    with fake_gpu():
        images_BHWC = torch.zeros(BATCH_SIZE, 28, 28, 3, dtype=torch.uint8)
        mean_C = std_C = torch.ones(3, device=GPU)
        for name, value in vars(change).items():
            if isinstance(value, torch.Tensor):
                object.__setattr__(change, name, torch.empty(value.shape, dtype=value.dtype))
        with tracing(BATCH_SIZE) as trace:
            changed_BHWC = change.apply(upload(images_BHWC, GPU), slice(0, BATCH_SIZE))
            normalized_BCHW = normalize(changed_BHWC, mean_C, std_C)
        assert normalized_BCHW.is_contiguous(memory_format=torch.channels_last)
    assert trace.waits == []
    assert trace.num_uploads == 3


def test_the_counter_sees_waits() -> None:
    """What it would miss, the tests above would not find."""
    with fake_gpu(), tracing(BATCH_SIZE) as trace:
        on_gpu = torch.zeros(4, 4, device=GPU)
        on_gpu.cpu()
        on_gpu[[0, 1], [2, 3]]
        torch.ones(3).to(GPU)
        torch.ones(3).to(GPU, non_blocking=True)
        with pytest.raises(RuntimeError):
            on_gpu.sum().item()
    assert len(trace.waits) == 5
