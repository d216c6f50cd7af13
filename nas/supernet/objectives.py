"""The loss of an architecture step: cross-entropy and expected latency joined into one number.

Source: TF-NAS, latency-constrained objective; the forms of FBNet (Wu et al., CVPR 2019) and
ProxylessNAS (Cai et al., ICLR 2019) as baselines.
"""

import torch
from torch import Tensor

from nas.config import Objective
from nas.foundation.errors import UserError


def tfnas_loss(
    cross_entropy: Tensor, latency_ms: Tensor, target_latency_ms: float, latency_weight: float
) -> Tensor:
    """CE + lambda * |L / T - 1|: bounded by its target from both sides."""
    return cross_entropy + latency_weight * (latency_ms / target_latency_ms - 1).abs()


def fbnet_loss(cross_entropy: Tensor, latency_ms: Tensor, scale: float, exponent: float) -> Tensor:
    """CE * a * log(L)^b: no target in it. Latencies must exceed 1 ms."""
    return cross_entropy * scale * torch.log(latency_ms) ** exponent


def proxyless_add_loss(
    cross_entropy: Tensor, latency_ms: Tensor, target_latency_ms: float, latency_weight: float
) -> Tensor:
    """CE + lambda * (L - T) / T: goes on rewarding latency below the target."""
    return cross_entropy + latency_weight * (latency_ms - target_latency_ms) / target_latency_ms


def proxyless_mul_loss(
    cross_entropy: Tensor, latency_ms: Tensor, target_latency_ms: float, scale: float, exponent: float
) -> Tensor:
    """Scaled CE: a * CE * (log L / log T)^b. Latencies and the target must exceed 1 ms."""
    target = torch.log(torch.as_tensor(target_latency_ms, dtype=latency_ms.dtype))
    return scale * cross_entropy * (torch.log(latency_ms) / target) ** exponent


def architecture_loss(
    objective: Objective,
    cross_entropy: Tensor,
    latency_ms: Tensor,
    *,
    target_latency_ms: float,
    latency_weight: float,
    scale: float,
    exponent: float,
) -> Tensor:
    """The form that `objective` names; arguments that it does not use are ignored.

    Args:
        cross_entropy: scalar, in nats.
        latency_ms: scalar, expected latency of the supernet.
        latency_weight: lambda of `tfnas` and `proxyless_add`.
        scale: a of `fbnet` and `proxyless_mul`.
        exponent: b of `fbnet` and `proxyless_mul`.
    """
    if objective == "tfnas":
        return tfnas_loss(cross_entropy, latency_ms, target_latency_ms, latency_weight)
    if objective == "fbnet":
        return fbnet_loss(cross_entropy, latency_ms, scale, exponent)
    if objective == "proxyless_add":
        return proxyless_add_loss(cross_entropy, latency_ms, target_latency_ms, latency_weight)
    return proxyless_mul_loss(cross_entropy, latency_ms, target_latency_ms, scale, exponent)


def check_latencies(objective: Objective, lowest_latency_ms: float, target_latency_ms: float) -> None:
    """Checks that a form which takes logarithms only meets latencies above 1 ms, where they are positive.

    Args:
        lowest_latency_ms: the lowest latency of any network of the space.

    Raises:
        UserError: it can meet others.
    """
    if objective not in ("fbnet", "proxyless_mul"):
        return
    lowest_ms = lowest_latency_ms if objective == "fbnet" else min(lowest_latency_ms, target_latency_ms)
    if lowest_ms <= 1:
        raise UserError(
            f"objective: '{objective}' takes logarithms of latencies, which must exceed 1 ms, but the lookup "
            f"table's networks and the target begin at {lowest_ms:.3g} ms; measure the table with a larger "
            "latency_batch_size, or use 'tfnas' or 'proxyless_add'"
        )
