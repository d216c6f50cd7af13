"""One candidate operator of one layer of the supernet: its weights, and which of its channels are active."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from nas.space.initial_weights import draw_weights
from nas.space.macro_space import LayerSpec
from nas.space.operators import CandidateOp
from nas.supernet.mixed_block import MBConvWeights


class Candidate(nn.Module):
    """One candidate operator of one layer, with weights at the maximum width.

    The first `width` channels are active; the others are kept, unused, and can come back. Batch
    norm has no parameters and uses batch statistics always.
    """

    def __init__(self, layer: LayerSpec, op: CandidateOp) -> None:
        super().__init__()
        _, max_width = op.width_interval(layer.in_channels)
        self.width = op.initial_width(layer.in_channels)
        self.expansion = nn.Parameter(torch.empty(max_width, layer.in_channels))
        self.depthwise = nn.Parameter(torch.empty(max_width, 1, op.kernel_size, op.kernel_size))
        # Input channels come first, so that the active ones are one contiguous block.
        self.projection = nn.Parameter(torch.empty(max_width, layer.out_channels))
        se_channels = op.se_channels(layer.in_channels)
        if se_channels:
            self.se_reduce = nn.Parameter(torch.empty(max_width, se_channels))
            self.se_reduce_bias = nn.Parameter(torch.zeros(se_channels))
            self.se_expand = nn.Parameter(torch.empty(max_width, se_channels))
            self.se_expand_bias = nn.Parameter(torch.zeros(max_width))
        self.has_se = bool(se_channels)

    def draw_weights(self, generator: torch.Generator) -> None:
        """Draws initial weights, those of the maximum width; biases stay 0."""
        max_width, in_channels = self.expansion.shape
        draw_weights(self.expansion, in_channels, generator)
        draw_weights(self.depthwise, self.depthwise[0].numel(), generator)
        draw_weights(self.projection, max_width, generator)
        if self.has_se:
            draw_weights(self.se_reduce, max_width, generator)
            draw_weights(self.se_expand, self.se_expand.shape[1], generator)

    def weights(self) -> MBConvWeights:
        """The weights at the maximum width."""
        always = (self.expansion, self.depthwise, self.projection)
        if not self.has_se:
            return MBConvWeights(*always)
        return MBConvWeights(
            *always, self.se_reduce, self.se_reduce_bias, self.se_expand, self.se_expand_bias
        )

    def channel_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters whose first dimension is the mid channels."""
        for name, parameter in self.named_parameters():
            if name != "se_reduce_bias":
                yield parameter

    @torch.no_grad()
    def set_width(self, width: int, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Makes the `width` channels with the largest L1 norm of the depthwise weight active.

        Channels are reordered, the active ones first, which does not change the function; the
        optimizer's momentum moves with its channel.
        """
        norms_C = self.depthwise.abs().sum((1, 2, 3))
        order_C = torch.sort(norms_C, descending=True, stable=True).indices
        for parameter in self.channel_parameters():
            parameter.copy_(parameter[order_C])
            state = optimizer.state.get(parameter, {}) if optimizer else {}
            for value in state.values():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    value.copy_(value[order_C])
        self.width = width
