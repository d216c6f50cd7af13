"""What is meant for GPUs, as far as a CPU can tell: bfloat16, deterministic algorithms, devices."""

import math

import numpy as np
import pytest
import torch

from nas.config import SearchConfig
from nas.foundation.device import determinism, resolve_device
from nas.foundation.errors import UserError
from nas.search.records import GPU_METRIC_NAMES, METRIC_NAMES
from nas.search.search import run_search
from nas.supernet.steps import SearchSteps
from tests.support.tiny import NUM_CLASSES, TINY, make_dense_table, make_images, make_supernet

TABLE = make_dense_table(TINY)
PATHS = [[layer % 8 for layer in range(len(TINY.layers))], [7 - layer for layer in range(len(TINY.layers))]]


def make_config(**fields: object) -> SearchConfig:
    base = {
        **{"space": TINY.name, "max_train_images": 50, "augmentation": "none", "batch_size": 10},
        **{"target_latency_ms": 2.3, "num_epochs": 2, "num_warmup_epochs": 1, "device": "cpu"},
    }
    return SearchConfig.model_validate(base | fields)


def weight_gradient(mixed_precision: bool, depth: str) -> tuple[float, torch.Tensor]:
    """Loss of a weight step and the momentum that it left: the gradient, clipped."""
    steps = SearchSteps(
        make_supernet(TINY, depth), make_config(mixed_precision=mixed_precision, depth=depth), TABLE
    )
    loss = steps.weight_step(make_images(TINY), torch.arange(8) % NUM_CLASSES, PATHS)[0].loss
    buffers = [
        steps.weight_optimizer.state[parameter]["momentum_buffer"].flatten()
        for parameter in steps.supernet.weight_parameters()
        if parameter in steps.weight_optimizer.state
    ]
    assert all(buffer.dtype == torch.float32 for buffer in buffers)
    return float(loss), torch.cat(buffers)


@pytest.mark.parametrize("depth", ["sink", "skip"])
def test_mixed_precision_gives_nearly_the_gradient_of_float32(depth: str) -> None:
    plain_loss, plain = weight_gradient(False, depth)
    mixed_loss, mixed = weight_gradient(True, depth)
    assert mixed_loss == pytest.approx(plain_loss, rel=0.05)
    assert mixed_loss != plain_loss
    assert torch.isfinite(mixed).all()
    assert torch.nn.functional.cosine_similarity(plain, mixed, dim=0) > 0.97


@pytest.mark.parametrize("depth", ["sink", "skip"])
def test_mixed_precision_gives_nearly_the_step_of_alpha_and_beta(depth: str) -> None:
    losses, gradients = [], []
    for mixed_precision in (False, True):
        config = make_config(mixed_precision=mixed_precision, depth=depth)
        steps = SearchSteps(make_supernet(TINY, depth), config, TABLE)
        generator = torch.Generator().manual_seed(0)
        labels_B = torch.arange(8) % NUM_CLASSES
        losses.append(float(steps.arch_step(make_images(TINY), labels_B, 5.0, generator)))
        moments = [
            steps.arch_optimizer.state[parameter]["exp_avg"].flatten()
            for parameter in steps.supernet.arch_parameters()
        ]
        gradients.append(torch.cat(moments))
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.97


def test_a_search_in_mixed_precision_runs_and_learns_about_as_much() -> None:
    plain, mixed = (
        list(run_search(make_config(mixed_precision=mixed), table=TABLE))[-1].metrics
        for mixed in (False, True)
    )
    assert all(math.isfinite(value) for value in mixed.values())
    assert mixed["train_loss"] == pytest.approx(plain["train_loss"], rel=0.1)


@pytest.mark.parametrize("before", [False, True])
def test_determinism_ends_where_it_should(before: bool) -> None:
    """Workers are used for one trial after the other."""
    cudnn = torch.backends.cudnn

    @determinism(True)
    def fail() -> None:
        assert torch.are_deterministic_algorithms_enabled()
        assert (cudnn.deterministic, cudnn.benchmark) == (True, False)
        raise ZeroDivisionError

    torch.use_deterministic_algorithms(before)
    try:
        state = (cudnn.deterministic, cudnn.benchmark)
        with pytest.raises(ZeroDivisionError):
            fail()
        assert torch.are_deterministic_algorithms_enabled() == before
        assert (cudnn.deterministic, cudnn.benchmark) == state
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_search_is_deterministic_while_it_computes_and_only_then() -> None:
    for _ in run_search(make_config(deterministic=True), table=TABLE):
        assert not torch.are_deterministic_algorithms_enabled()
    steps = []
    original = SearchSteps.weight_step

    def observed(*arguments: object) -> object:
        steps.append(torch.are_deterministic_algorithms_enabled())
        return original(*arguments)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SearchSteps, "weight_step", observed)
        list(run_search(make_config(deterministic=True, num_warmup_epochs=0, num_epochs=1), table=TABLE))
        assert steps == [True] * 4
        steps.clear()
        list(run_search(make_config(num_warmup_epochs=0, num_epochs=1), table=TABLE))
        assert steps == [False] * 4


def test_the_deterministic_mode_changes_nothing_on_the_cpu() -> None:
    one, other = (list(run_search(make_config(deterministic=d), table=TABLE))[-1] for d in (False, True))
    assert np.array_equal(one.arrays["alpha_ELO"], other.arrays["alpha_ELO"])
    assert one.metrics["train_loss"] == other.metrics["train_loss"]


def test_a_search_on_the_cpu_tells_nothing_of_a_gpu() -> None:
    (record,) = run_search(make_config(num_warmup_epochs=0, num_epochs=1), table=TABLE)
    assert not set(record.metrics) & set(GPU_METRIC_NAMES)
    assert not set(METRIC_NAMES) & set(GPU_METRIC_NAMES)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused_in_one_line() -> None:
    assert resolve_device("auto") == torch.device("cpu")
    for name in ("cuda", "cuda:0", "cuda:7"):
        with pytest.raises(UserError, match=f"device: '{name}'; 0 GPUs are visible here; use auto or cpu"):
            resolve_device(name)
    with pytest.raises(UserError, match="device: 'gpu'; use auto, cpu, cuda"):
        resolve_device("gpu")
