"""Size and cost of a network."""

import torch
from torch import nn


def count_parameters(module: nn.Module) -> int:
    """Number of learnable parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_macs(module: nn.Module, resolution: int) -> int:
    """Multiply-accumulates of the convolutions and linear layers for one RGB image.

    Args:
        resolution: height and width of the image, in pixels.
    """
    # Imported here: it imports a compiler.
    from torch.utils.flop_counter import FlopCounterMode

    device = next(module.parameters()).device
    image_BCHW = torch.zeros(1, 3, resolution, resolution, device=device)
    was_training = module.training
    counter = FlopCounterMode(display=False)
    try:
        with torch.no_grad(), counter:
            module.eval()(image_BCHW)
    finally:
        module.train(was_training)
    # The counter counts a multiply-accumulate as two operations.
    return int(counter.get_total_flops()) // 2
