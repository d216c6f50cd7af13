"""A forward and a backward pass of tiny blocks: compiles every loop, and compares it with plain torch."""

import torch

from nas.supernet.compiled.compiled_block import CompiledBlock
from nas.supernet.mixed_block import BlockFunction, MBConvShape, MBConvWeights, mixed_block

_TOLERANCE = 1e-3


@torch.enable_grad()
def check_compiled_block() -> None:
    """Runs every loop once, with each combination of types that a search calls it with.

    Raises:
        RuntimeError: compiled blocks differ from plain ones: a BLAS or a compiler is broken.
    """
    # With few channels batch norm is folded into the weights, with many it is not. One pixel has
    # its own loop.
    for num_channels, resolution in ((4, 2), (32, 1)):
        for trains in (True, False):
            results = [
                _run(block, num_channels, resolution, trains) for block in (CompiledBlock(), mixed_block)
            ]
            for ours, expected in zip(*results, strict=True):
                if not torch.allclose(ours, expected, rtol=_TOLERANCE, atol=_TOLERANCE):
                    raise RuntimeError("they compute other numbers than torch")


def _run(block: BlockFunction, num_channels: int, resolution: int, trains: bool) -> list[torch.Tensor]:
    """Output and gradients of a block of two candidates, with and without squeeze-and-excitation."""
    width, num_reduced = 8, 2
    shapes = [(width, num_channels), (width, 1, 5, 5), (width, num_channels)]
    se_shapes = [(width, num_reduced), (num_reduced,), (width, num_reduced), (width,)]
    candidates = [
        MBConvWeights(*(_wave(*shape).requires_grad_(trains) for shape in each))
        for each in (shapes, shapes + se_shapes)
    ]
    features = _wave(8, num_channels, resolution, resolution)
    features = features.contiguous(memory_format=torch.channels_last).requires_grad_()
    mix_weights_O = torch.tensor([0.25, 0.75], device="cpu", requires_grad=True)
    out = block(features, candidates, [width, width - 2], mix_weights_O, MBConvShape(1, "swish", True))
    leaves = [features, mix_weights_O]
    if trains:
        leaves += [tensor for weights in candidates for tensor in weights if tensor is not None]
    # A sum: where torch is handed a gradient, it imports a library for symbols first, which takes longer.
    return [out.detach(), *torch.autograd.grad((out * _wave(*out.shape)).sum(), leaves)]


def _wave(*shape: int) -> torch.Tensor:
    """Numbers without a pattern; the global generator is the caller's."""
    size = torch.Size(shape).numel()
    return torch.arange(size, dtype=torch.float32, device="cpu").mul_(1.7).sin_().view(shape)
