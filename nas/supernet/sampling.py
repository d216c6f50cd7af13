"""Sampling of operators: Gumbel weights, the first path and the second.

To add a sampling variant, write a function like those below and register it in `SAMPLINGS`.

Shapes: L searchable layers, O candidate operators. A candidate that a layer lacks has log-alpha
-inf and is never sampled.

Source: TF-NAS, bi-sampling; Gumbel softmax after Jang et al. and Maddison et al. (ICLR 2017).
"""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from nas.foundation.device import upload
from nas.foundation.registry import Registry

SecondPath = Callable[[Tensor, Tensor, Generator], Tensor | None]
"""From log_alpha_LO, the first path's candidates_L and a generator to the second path's, or None."""


def sample_gumbel(shape: tuple[int, ...] | torch.Size, generator: Generator) -> Tensor:
    """Standard Gumbel noise, float32, on the generator's device."""
    noise = torch.empty(shape, device=generator.device).exponential_(generator=generator)
    return -noise.log()


def gumbel_softmax(log_alpha_LO: Tensor, temperature: float, generator: Generator) -> Tensor:
    """Soft weights of each layer's candidates, differentiable in log-alpha; each row sums to 1.

    Args:
        generator: must be on the CPU, so that a seed means the same on every device.
    """
    noise_LO = upload(sample_gumbel(log_alpha_LO.shape, generator), log_alpha_LO.device)
    return torch.softmax((log_alpha_LO + noise_LO) / temperature, dim=-1)


def sample_first_path(log_alpha_LO: Tensor, generator: Generator) -> Tensor:
    """Path A: one candidate per layer, drawn from alpha.

    It is the argmax of Gumbel softmax weights, which no temperature changes, so none is taken.
    """
    return (log_alpha_LO + sample_gumbel(log_alpha_LO.shape, generator)).argmax(dim=-1)


def no_second_path(log_alpha_LO: Tensor, first_L: Tensor, generator: Generator) -> None:
    """`single`: the first path alone."""


def random_second_path(log_alpha_LO: Tensor, first_L: Tensor, generator: Generator) -> Tensor:
    """`bi_random`: uniform over the other candidates; the paper's choice."""
    return best_other(torch.rand(log_alpha_LO.shape, generator=generator), log_alpha_LO, first_L)


def gumbel_second_path(log_alpha_LO: Tensor, first_L: Tensor, generator: Generator) -> Tensor:
    """`bi_gumbel`: from alpha, restricted to the other candidates."""
    noise_LO = sample_gumbel(log_alpha_LO.shape, generator)
    return best_other(log_alpha_LO + noise_LO, log_alpha_LO, first_L)


def min_second_path(log_alpha_LO: Tensor, first_L: Tensor, generator: Generator) -> Tensor:
    """`bi_min`: the other candidate with the lowest alpha."""
    return best_other(-log_alpha_LO, log_alpha_LO, first_L)


def max_second_path(log_alpha_LO: Tensor, first_L: Tensor, generator: Generator) -> Tensor:
    """`bi_max`: the other candidate with the highest alpha."""
    return best_other(log_alpha_LO, log_alpha_LO, first_L)


def best_other(scores_LO: Tensor, log_alpha_LO: Tensor, first_L: Tensor) -> Tensor:
    """In each layer, of the candidates that it has and that are not the first path's, the highest score's."""
    is_other_LO = log_alpha_LO.isfinite().scatter(-1, first_L.unsqueeze(-1), False)
    return scores_LO.masked_fill(~is_other_LO, -torch.inf).argmax(dim=-1)


SAMPLINGS: Registry[SecondPath] = Registry(
    "sampling",
    {
        "single": no_second_path,
        "bi_random": random_second_path,
        "bi_gumbel": gumbel_second_path,
        "bi_min": min_second_path,
        "bi_max": max_second_path,
    },
)
"""How a weight step draws its second path."""


def temperature_at(
    epoch: int, *, num_warmup_epochs: int, initial_temperature: float, temperature_decay: float
) -> float:
    """Temperature of an epoch (counted from 1): the initial one until the first joint epoch ends."""
    num_decays = max(epoch - num_warmup_epochs - 1, 0)
    return float(initial_temperature * temperature_decay**num_decays)
