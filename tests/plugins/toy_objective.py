"""An objective: the squared distance of the latency from its target."""

from torch import Tensor

from nas.supernet.objectives import OBJECTIVES


def squared(
    cross_entropy: Tensor,
    latency_ms: Tensor,
    *,
    target_latency_ms: float,
    latency_weight: float,
    slack: float = 0.01,
) -> Tensor:
    """CE + lambda * (L / T - 1 + slack)^2; `slack` is a constant of this objective alone."""
    return cross_entropy + latency_weight * (latency_ms / target_latency_ms - 1 + slack) ** 2


OBJECTIVES.register("squared", squared)
