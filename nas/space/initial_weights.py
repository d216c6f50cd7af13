"""Initial weights, of supernets and of derived networks: PyTorch's defaults, with biases of zero.

They are more than a matter of scale. Batch norm makes a network's output independent of the scale of the
weights before it, but the step of a weight matters relative to its size, and no batch norm follows the
gates of squeeze-and-excitation.

Source: TF-NAS, initial weights of the published implementation.
"""

import math

import torch
from torch import Generator, Tensor, nn


@torch.no_grad()
def draw_weights(weights: Tensor, num_inputs: int, generator: Generator | None = None) -> None:
    """Draws the weights of a convolution or a linear layer, as PyTorch does by default.

    They are uniform between plus and minus 1 / sqrt(`num_inputs`).

    Args:
        weights: in any layout; overwritten.
        num_inputs: how many inputs an output sums (the fan-in).
        generator: PyTorch's global one if not given.
    """
    bound = 1 / math.sqrt(num_inputs)
    weights.uniform_(-bound, bound, generator=generator)


@torch.no_grad()
def draw_all_weights(network: nn.Module, generator: Generator | None = None) -> None:
    """Draws the weights of all convolutions and linear layers of a network, and sets their biases to 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            draw_weights(module.weight, module.weight[0].numel(), generator)
            if module.bias is not None:
                module.bias.zero_()
