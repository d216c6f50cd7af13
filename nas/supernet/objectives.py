"""The loss of an architecture step: cross-entropy and expected latency joined into one number.

To add an objective, write a function like those below and register it in `OBJECTIVES`. Its
keyword-only parameters are the config fields that it reads; no other objective field has an effect
under it. Where such a field is None, the parameter's default is used. A parameter that is no config
field is a constant of the objective, and needs a default. The one exception is `latency_multiplier`:
an objective with this parameter is given a scalar that the search learns, see `MULTIPLIER`.

Source: TF-NAS, latency-constrained objective; the forms of FBNet (Wu et al., CVPR 2019),
ProxylessNAS (Cai et al., ICLR 2019) and LightNAS (Luo et al., DAC 2022) as baselines.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

from nas.foundation.errors import UserError
from nas.foundation.registry import Registry

Objective = Callable[..., Tensor]
"""From the cross-entropy in nats and the expected latency in ms, both scalars, to the loss."""

MULTIPLIER = "latency_multiplier"
"""The parameter that is state of a search: it starts at 0, and climbs the gradient of the loss.

Each architecture step adds `latency_multiplier_lr` times that gradient to it, while alpha and beta descend.
"""


def tfnas(
    cross_entropy: Tensor, latency_ms: Tensor, *, target_latency_ms: float, latency_weight: float
) -> Tensor:
    """CE + lambda * |L / T - 1|: bounded by its target from both sides."""
    return cross_entropy + latency_weight * (latency_ms / target_latency_ms - 1).abs()


def fbnet(
    cross_entropy: Tensor, latency_ms: Tensor, *, objective_scale: float, objective_exponent: float = 0.6
) -> Tensor:
    """CE * a * log(L)^b: no target in it. Latencies must exceed 1 ms."""
    return cross_entropy * objective_scale * torch.log(latency_ms) ** objective_exponent


def proxyless_add(
    cross_entropy: Tensor, latency_ms: Tensor, *, target_latency_ms: float, latency_weight: float
) -> Tensor:
    """CE + lambda * (L - T) / T: rewards latency below the target, too."""
    return cross_entropy + latency_weight * (latency_ms - target_latency_ms) / target_latency_ms


def proxyless_mul(
    cross_entropy: Tensor,
    latency_ms: Tensor,
    *,
    target_latency_ms: float,
    objective_scale: float,
    objective_exponent: float = 0.3,
) -> Tensor:
    """Scaled CE: a * CE * (log L / log T)^b. Latencies and the target must exceed 1 ms."""
    log_target = torch.log(torch.as_tensor(target_latency_ms, dtype=latency_ms.dtype))
    return objective_scale * cross_entropy * (torch.log(latency_ms) / log_target) ** objective_exponent


def lagrangian(
    cross_entropy: Tensor, latency_ms: Tensor, *, target_latency_ms: float, latency_multiplier: Tensor
) -> Tensor:
    """CE + lambda * (L / T - 1), with a lambda of either sign that is learned instead of tuned.

    Lambda rises while the latency is above its target, and falls while it is below: it rests where the two
    are equal.

    Source: LightNAS, hard latency constraint by a learned trade-off.
    """
    return cross_entropy + latency_multiplier * (latency_ms / target_latency_ms - 1)


OBJECTIVES: Registry[Objective] = Registry(
    "objective",
    {
        "tfnas": tfnas,
        "fbnet": fbnet,
        "proxyless_add": proxyless_add,
        "proxyless_mul": proxyless_mul,
        "lagrangian": lagrangian,
    },
)
"""The forms of the architecture step's loss."""


@cache
def parameters_of(objective: str) -> Mapping[str, Any]:
    """The config fields that an objective reads, each with its default (None where it has none).

    Raises:
        UserError: there is no such objective.
    """
    parameters = inspect.signature(OBJECTIVES[objective]).parameters.values()
    return {
        parameter.name: None if parameter.default is parameter.empty else parameter.default
        for parameter in parameters
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.name != MULTIPLIER
    }


def has_multiplier(objective: str) -> bool:
    """Whether an objective has a multiplier that the search learns, see `MULTIPLIER`."""
    return MULTIPLIER in inspect.signature(OBJECTIVES[objective]).parameters


def depends_on_target(objective: str, fields: Mapping[str, float]) -> bool:
    """Whether the loss changes with the target, at these values of the fields that the objective reads."""
    if "target_latency_ms" not in fields or fields.get("latency_weight") != 0:
        return "target_latency_ms" in fields
    # Without a weight, an objective may still read the target elsewhere.
    latency_ms = torch.tensor(2.0, dtype=torch.float64)
    losses = {
        float(_example_loss(objective, latency_ms, {**fields, "target_latency_ms": target_ms}))
        for target_ms in (1.5, 3.0, 5.0)
    }
    return len(losses) > 1


def check_latencies(objective: str, fields: Mapping[str, float], latencies_ms: tuple[float, ...]) -> None:
    """Checks that an objective has a finite value and slope at these latencies.

    Forms that take logarithms are undefined at 1 ms and below.

    Args:
        fields: those that the objective reads.
        latencies_ms: the lowest and the highest latency of any network of the space.

    Raises:
        UserError: the objective is undefined at one of them.
    """
    for lowest_ms in latencies_ms:
        latency_ms = torch.tensor(lowest_ms, dtype=torch.float64, requires_grad=True)
        loss = _example_loss(objective, latency_ms, fields)
        slope = torch.autograd.grad(loss, latency_ms, allow_unused=True)[0] if loss.requires_grad else None
        if not loss.isfinite() or (slope is not None and not slope.isfinite()):
            raise UserError(
                f"objective: '{objective}' is undefined at {lowest_ms:.3g} ms, a latency that the lookup "
                "table's networks can have (logarithms need more than 1 ms, of the target, too); measure "
                "the table with a larger latency_batch_size, or use 'tfnas' or 'proxyless_add'"
            )


def _example_loss(objective: str, latency_ms: Tensor, fields: Mapping[str, float]) -> Tensor:
    """The loss at a cross-entropy of 1 and, where there is one, a multiplier of 1."""
    one = torch.ones((), dtype=latency_ms.dtype)
    state = {MULTIPLIER: one} if has_multiplier(objective) else {}
    return OBJECTIVES[objective](one, latency_ms, **fields, **state)
