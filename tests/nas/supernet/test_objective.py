"""The four forms of the architecture step's loss: values by hand, gradients by finite differences."""

import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import Tensor

from nas.config import Objective
from nas.supernet.objectives import architecture_loss

OBJECTIVES: tuple[Objective, ...] = get_args(Objective)
TARGET_MS = 15.0


def loss_of(objective: Objective, cross_entropy: Tensor, latency_ms: Tensor, **changes: float) -> Tensor:
    constants = {"target_latency_ms": TARGET_MS, "latency_weight": 0.1, "scale": 0.2, "exponent": 0.6}
    return architecture_loss(objective, cross_entropy, latency_ms, **constants | changes)


def double(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


BY_HAND: dict[Objective, Callable[[float, float], float]] = {
    "tfnas": lambda ce, ms: ce + 0.1 * abs(ms / 15.0 - 1),
    "fbnet": lambda ce, ms: ce * 0.2 * math.log(ms) ** 0.6,
    "proxyless_add": lambda ce, ms: ce + 0.1 * (ms - 15.0) / 15.0,
    "proxyless_mul": lambda ce, ms: 0.2 * ce * (math.log(ms) / math.log(15.0)) ** 0.6,
}


@pytest.mark.parametrize("latency_ms", [5.0, 14.9, 15.0, 22.0])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_value_is_the_formula_s(objective: Objective, latency_ms: float) -> None:
    loss = loss_of(objective, double(4.6), double(latency_ms))
    assert float(loss.detach()) == pytest.approx(BY_HAND[objective](4.6, latency_ms), rel=1e-12)


@pytest.mark.parametrize("latency_ms", [5.0, 22.0])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_gradients_agree_with_finite_differences(objective: Objective, latency_ms: float) -> None:
    cross_entropy, latency = double(4.6), double(latency_ms)
    loss_of(objective, cross_entropy, latency).backward()
    by_hand, step = BY_HAND[objective], 1e-5
    to_cross_entropy = (by_hand(4.6 + step, latency_ms) - by_hand(4.6 - step, latency_ms)) / (2 * step)
    to_latency = (by_hand(4.6, latency_ms + step) - by_hand(4.6, latency_ms - step)) / (2 * step)
    assert cross_entropy.grad is not None
    assert latency.grad is not None
    assert float(cross_entropy.grad) == pytest.approx(to_cross_entropy, rel=1e-6)
    assert float(latency.grad) == pytest.approx(to_latency, rel=1e-6)


def latency_gradient(objective: Objective, latency_ms: float, **changes: float) -> float:
    latency = double(latency_ms)
    loss_of(objective, double(4.6), latency, **changes).backward()
    assert latency.grad is not None
    return float(latency.grad)


def test_only_tfnas_pulls_up_from_below_the_target() -> None:
    pulls = {objective: latency_gradient(objective, 10.0) for objective in OBJECTIVES}
    assert pulls["tfnas"] == pytest.approx(-0.1 / TARGET_MS)
    assert all(pull > 0 for objective, pull in pulls.items() if objective != "tfnas")
    assert latency_gradient("tfnas", 20.0) == pytest.approx(0.1 / TARGET_MS)


def test_fbnet_has_no_target() -> None:
    one, other = (loss_of("fbnet", double(4.6), double(20.0), target_latency_ms=ms) for ms in (5.0, 50.0))
    assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("objective", "field"),
    [
        ("tfnas", "latency_weight"),
        ("proxyless_add", "latency_weight"),
        ("fbnet", "scale"),
        ("fbnet", "exponent"),
        ("proxyless_mul", "scale"),
        ("proxyless_mul", "exponent"),
    ],
)
def test_each_form_heeds_its_own_constants_and_no_other(objective: Objective, field: str) -> None:
    own = {
        "tfnas": {"latency_weight"},
        "proxyless_add": {"latency_weight"},
        "fbnet": {"scale", "exponent"},
        "proxyless_mul": {"scale", "exponent"},
    }[objective]
    before = float(loss_of(objective, double(4.6), double(20.0)).detach())
    assert float(loss_of(objective, double(4.6), double(20.0), **{field: 0.37}).detach()) != before
    for other in {"latency_weight", "scale", "exponent"} - own:
        assert float(loss_of(objective, double(4.6), double(20.0), **{other: 0.37}).detach()) == before
