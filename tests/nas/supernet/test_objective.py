"""The forms of the architecture step's loss: values by hand, gradients by finite differences."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nas.config import SearchConfig
from nas.supernet.objectives import (
    MULTIPLIER,
    OBJECTIVES,
    check_latencies,
    depends_on_target,
    has_multiplier,
    parameters_of,
)

NAMES = tuple(OBJECTIVES)
TARGET_MS = 15.0


CONSTANTS = {
    "target_latency_ms": TARGET_MS,
    "latency_weight": 0.1,
    "objective_scale": 0.2,
    "objective_exponent": 0.6,
}


def loss_of(objective: str, cross_entropy: Tensor, latency_ms: Tensor, **changes: float) -> Tensor:
    values = CONSTANTS | changes
    read: dict[str, float | Tensor] = {name: values[name] for name in parameters_of(objective)}
    if has_multiplier(objective):
        read[MULTIPLIER] = torch.tensor(0.3, dtype=torch.float64)
    return OBJECTIVES[objective](cross_entropy, latency_ms, **read)


def double(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


BY_HAND: dict[str, Callable[[float, float], float]] = {
    "tfnas": lambda ce, ms: ce + 0.1 * abs(ms / 15.0 - 1),
    "fbnet": lambda ce, ms: ce * 0.2 * math.log(ms) ** 0.6,
    "proxyless_add": lambda ce, ms: ce + 0.1 * (ms - 15.0) / 15.0,
    "proxyless_mul": lambda ce, ms: 0.2 * ce * (math.log(ms) / math.log(15.0)) ** 0.6,
    "lagrangian": lambda ce, ms: ce + 0.3 * (ms / 15.0 - 1),
}


@pytest.mark.parametrize("latency_ms", [5.0, 14.9, 15.0, 22.0])
@pytest.mark.parametrize("objective", NAMES)
def test_the_value_is_the_formula_s(objective: str, latency_ms: float) -> None:
    loss = loss_of(objective, double(4.6), double(latency_ms))
    assert float(loss.detach()) == pytest.approx(BY_HAND[objective](4.6, latency_ms), rel=1e-12)


@pytest.mark.parametrize("latency_ms", [5.0, 22.0])
@pytest.mark.parametrize("objective", NAMES)
def test_gradients_agree_with_finite_differences(objective: str, latency_ms: float) -> None:
    cross_entropy, latency = double(4.6), double(latency_ms)
    loss_of(objective, cross_entropy, latency).backward()
    by_hand, step = BY_HAND[objective], 1e-5
    to_cross_entropy = (by_hand(4.6 + step, latency_ms) - by_hand(4.6 - step, latency_ms)) / (2 * step)
    to_latency = (by_hand(4.6, latency_ms + step) - by_hand(4.6, latency_ms - step)) / (2 * step)
    assert cross_entropy.grad is not None
    assert latency.grad is not None
    assert float(cross_entropy.grad) == pytest.approx(to_cross_entropy, rel=1e-6)
    assert float(latency.grad) == pytest.approx(to_latency, rel=1e-6)


def latency_gradient(objective: str, latency_ms: float, **changes: float) -> float:
    latency = double(latency_ms)
    loss_of(objective, double(4.6), latency, **changes).backward()
    assert latency.grad is not None
    return float(latency.grad)


def test_only_tfnas_pulls_up_from_below_the_target() -> None:
    pulls = {objective: latency_gradient(objective, 10.0) for objective in NAMES}
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
        ("fbnet", "objective_scale"),
        ("fbnet", "objective_exponent"),
        ("proxyless_mul", "objective_scale"),
        ("proxyless_mul", "objective_exponent"),
    ],
)
def test_each_form_heeds_its_own_constants_and_no_other(objective: str, field: str) -> None:
    own = {
        "tfnas": {"latency_weight"},
        "proxyless_add": {"latency_weight"},
        "fbnet": {"objective_scale", "objective_exponent"},
        "proxyless_mul": {"objective_scale", "objective_exponent"},
    }[objective]
    before = float(loss_of(objective, double(4.6), double(20.0)).detach())
    assert float(loss_of(objective, double(4.6), double(20.0), **{field: 0.37}).detach()) != before
    for other in {"latency_weight", "objective_scale", "objective_exponent"} - own:
        assert float(loss_of(objective, double(4.6), double(20.0), **{other: 0.37}).detach()) == before


@pytest.mark.parametrize("objective", NAMES)
def test_only_an_objective_that_learns_a_multiplier_reads_its_rate(objective: str) -> None:
    fields = ("latency_weight", "objective_scale", "objective_exponent", "latency_multiplier_lr")
    config = SearchConfig(
        space="paper", target_latency_ms=TARGET_MS, objective=objective, **dict.fromkeys(fields, 0.3)
    )
    is_learned = objective == "lagrangian"
    assert ("latency_multiplier_lr" in config.ineffective_fields()) == (not is_learned)
    assert not is_learned or set(config.ineffective_fields()) == set(fields) - {"latency_multiplier_lr"}
    # It is state of the search, and no field.
    assert MULTIPLIER not in config.objective_fields()


def test_a_plugin_may_learn_a_multiplier_beside_a_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    def augmented(
        cross_entropy: Tensor,
        latency_ms: Tensor,
        *,
        target_latency_ms: float,
        latency_weight: float,
        latency_multiplier: Tensor,
    ) -> Tensor:
        excess = latency_ms / target_latency_ms - 1
        return cross_entropy + latency_multiplier * excess + latency_weight * excess**2

    monkeypatch.setitem(OBJECTIVES._values, "augmented", augmented)
    config = SearchConfig(space="paper", target_latency_ms=3.0, objective="augmented", latency_weight=0.0)
    assert config.objective_fields() == {"target_latency_ms": 3.0, "latency_weight": 0.0}
    assert not {"latency_weight", "latency_multiplier_lr"} & config.unused_fields()
    # The multiplier starts at 0, and its slope does not.
    assert config.is_target_used
    check_latencies("augmented", config.objective_fields(), (0.5, 5.0))


def test_a_parameter_that_is_no_config_field_needs_a_default(monkeypatch: pytest.MonkeyPatch) -> None:
    def with_constant(cross_entropy: Tensor, latency_ms: Tensor, *, slack: float = 0.5) -> Tensor:
        return cross_entropy + slack

    def without_default(cross_entropy: Tensor, latency_ms: Tensor, *, slack: float) -> Tensor:
        return cross_entropy + slack

    monkeypatch.setattr(OBJECTIVES, "_values", {"constant": with_constant, "incomplete": without_default})
    config = SearchConfig(space="paper", target_latency_ms=1.0, objective="constant")
    assert config.objective_fields() == {"slack": 0.5}
    unused = set(config.unused_fields())
    assert {"latency_weight", "objective_scale", "objective_exponent"} <= unused
    assert not {"target_latency_ms", "slack"} & unused
    with pytest.raises(ValueError, match="'incomplete' reads 'slack'"):
        SearchConfig(space="paper", target_latency_ms=1.0, objective="incomplete")


def test_a_one_sided_objective_of_a_plugin_depends_on_its_target(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def one_sided(
        cross_entropy: Tensor, latency_ms: Tensor, *, target_latency_ms: float, latency_weight: float
    ) -> Tensor:
        return cross_entropy + latency_weight * (latency_ms / target_latency_ms - 1).relu()

    monkeypatch.setitem(OBJECTIVES._values, "one_sided", one_sided)
    for objective in ("one_sided", "tfnas", "proxyless_add"):
        fields = {"target_latency_ms": 3.0, "latency_weight": 1e-9}
        assert depends_on_target(objective, fields)
        assert not depends_on_target(objective, fields | {"latency_weight": 0})
    assert depends_on_target("proxyless_mul", {"target_latency_ms": 3.0, "objective_scale": 0.2})
    assert depends_on_target("lagrangian", {"target_latency_ms": 3.0})
    assert not depends_on_target("fbnet", {"objective_scale": 0.2})
