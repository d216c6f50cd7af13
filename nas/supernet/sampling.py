"""Sampling of operators: Gumbel weights, the first path and the second.

Shapes: L searchable layers, O candidate operators. A candidate that a layer lacks has log-alpha
-inf and is never sampled.

Source: TF-NAS, bi-sampling; Gumbel softmax after Jang et al. and Maddison et al. (ICLR 2017).
"""

import torch
from torch import Tensor

from nas.config import Sampling


def sample_gumbel(shape: tuple[int, ...] | torch.Size, generator: torch.Generator) -> Tensor:
    """Standard Gumbel noise, float32, on the generator's device."""
    noise = torch.empty(shape, device=generator.device).exponential_(generator=generator)
    return -noise.log()


def gumbel_softmax(log_alpha_LO: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """Soft weights of each layer's candidates, differentiable in log-alpha; each row sums to 1.

    Args:
        generator: must be on the CPU, so that a seed means the same on every device.
    """
    noise_LO = sample_gumbel(log_alpha_LO.shape, generator).to(log_alpha_LO.device, non_blocking=True)
    return torch.softmax((log_alpha_LO + noise_LO) / temperature, dim=-1)


def sample_first_path(log_alpha_LO: Tensor, generator: torch.Generator) -> Tensor:
    """Path A: one candidate a layer, drawn from alpha.

    It is the argmax of Gumbel softmax weights, which no temperature changes, so none is taken.
    """
    return (log_alpha_LO + sample_gumbel(log_alpha_LO.shape, generator)).argmax(dim=-1)


def sample_second_path(
    log_alpha_LO: Tensor, first_L: Tensor, sampling: Sampling, generator: torch.Generator
) -> Tensor | None:
    """Path B: in each layer a candidate other than the first path's, or None for `single`.

    `bi_random` (alias `bi`) draws uniformly from the others, `bi_gumbel` from alpha restricted to
    the others, `bi_min` and `bi_max` take the other with the lowest and the highest alpha.
    """
    if sampling == "single":
        return None
    exists_LO = log_alpha_LO.isfinite()
    scores_LO = torch.where(exists_LO, log_alpha_LO, 0)
    if sampling in ("bi", "bi_random"):
        scores_LO = torch.rand(log_alpha_LO.shape, generator=generator)
    elif sampling == "bi_gumbel":
        scores_LO = scores_LO + sample_gumbel(log_alpha_LO.shape, generator)
    elif sampling == "bi_min":
        scores_LO = -scores_LO
    is_other_LO = exists_LO.scatter(-1, first_L.unsqueeze(-1), False)
    return scores_LO.masked_fill(~is_other_LO, -torch.inf).argmax(dim=-1)


def temperature_at(
    epoch: int, *, num_warmup_epochs: int, initial_temperature: float, temperature_decay: float
) -> float:
    """Temperature of an epoch (counted from 1): the initial one until the first joint epoch ends."""
    num_decays = max(epoch - num_warmup_epochs - 1, 0)
    return float(initial_temperature * temperature_decay**num_decays)
