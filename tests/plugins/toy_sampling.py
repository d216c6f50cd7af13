"""A sampling variant: in each layer the next candidate after the first path's."""

import torch
from torch import Generator, Tensor

from nas.supernet.sampling import SAMPLINGS, best_other


def next_path(log_alpha_LO: Tensor, first_L: Tensor, generator: Generator) -> Tensor:
    """The next candidate that the layer has, in the order of alpha."""
    num_candidates = log_alpha_LO.shape[-1]
    distance_LO = (torch.arange(num_candidates) - first_L[:, None] - 1) % num_candidates
    return best_other(-distance_LO.float(), log_alpha_LO, first_L)


SAMPLINGS.register("bi_next", next_path)
