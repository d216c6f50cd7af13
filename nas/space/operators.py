"""Candidate operators: which there are, and the block that they all are.

To add one, register a record in `OPERATORS` and name it among the operators of a space.

Source: TF-NAS, search space (operator and width levels).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from nas.foundation.registry import Registry

Activation = Literal["relu", "swish"]

SKIP_OP_NAME = "skip"
"""Name of identity: a candidate in the `skip` depth space, and in spaces that list it as an operator."""


@dataclass(frozen=True)
class CandidateOp:
    """One candidate operator: an MBConv of a kernel size and an expansion, with SE or without.

    All widths are multiples of the block's input channels, so one record serves every layer.
    """

    name: str
    kernel_size: int
    expansion: int
    has_se: bool

    def initial_width(self, in_channels: int) -> int:
        """Mid channels before any elasticity-scaling."""
        return self.expansion * in_channels

    def width_interval(self, in_channels: int) -> tuple[int, int]:
        """Lowest and highest mid channels, both included: two and four thirds of the initial width.

        Every integer in between is allowed.
        """
        initial = self.initial_width(in_channels)
        return -(-2 * initial // 3), 4 * initial // 3

    def se_channels(self, in_channels: int) -> int:
        """Reduced channels of squeeze-and-excitation; 0 where the operator has none."""
        return max(self.initial_width(in_channels) // 3, 1) if self.has_se else 0


def _make_op(kernel_size: int, expansion: int, has_se: bool) -> CandidateOp:
    name = f"k{kernel_size}_e{expansion}{'_se' if has_se else ''}"
    return CandidateOp(name, kernel_size, expansion, has_se)


_PAPER_OPS = [
    _make_op(kernel_size, expansion, has_se)
    for has_se in (False, True)
    for kernel_size in (3, 5)
    for expansion in (3, 6)
]

OPERATORS: Registry[CandidateOp] = Registry("operator", {op.name: op for op in _PAPER_OPS})
"""Every operator that a space may name."""

PAPER_OPERATORS: tuple[str, ...] = tuple(op.name for op in _PAPER_OPS)
"""The paper's, in the order of alpha: k3_e3, k3_e6, k5_e3, k5_e6, then the same with SE."""


def make_activation(activation: Activation) -> nn.Module:
    """Returns the module of an activation name; swish is x * sigmoid(x)."""
    return nn.ReLU(inplace=True) if activation == "relu" else nn.SiLU(inplace=True)


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate computed from the channels' means.

    The inner activation is the block's; the gate is a sigmoid; both convolutions have a bias.
    """

    def __init__(self, channels: int, reduced_channels: int, activation: Activation) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, reduced_channels, 1)
        self.activation = make_activation(activation)
        self.expand = nn.Conv2d(reduced_channels, channels, 1)

    def forward(self, features_BCHW: Tensor) -> Tensor:
        """Returns features of the same shape."""
        means_BC11 = features_BCHW.mean((2, 3), keepdim=True)
        return features_BCHW * torch.sigmoid(self.expand(self.activation(self.reduce(means_BC11))))


class MBConv(nn.Module):
    """Inverted residual block.

    1x1 expansion, depthwise k x k, squeeze-and-excitation where `se_channels` > 0, linear 1x1
    projection; each convolution without bias and with batch norm. The input is added when
    the stride is 1 and the channels are equal.

    Args:
        has_expansion: False leaves the 1x1 expansion out; `mid_channels` is then `in_channels`.
        drop_connect: probability to drop the residual branch of a sample while training.
        affine: False gives batch norm as during a search: no parameters, batch statistics always.
    """

    def __init__(
        self,
        in_channels: int,
        mid_channels: int,
        out_channels: int,
        *,
        kernel_size: int,
        stride: int,
        activation: Activation,
        se_channels: int = 0,
        has_expansion: bool = True,
        drop_connect: float = 0.0,
        affine: bool = True,
    ) -> None:
        super().__init__()
        assert has_expansion or mid_channels == in_channels
        layers: list[nn.Module] = []
        if has_expansion:
            layers += _conv_bn(in_channels, mid_channels, 1, activation=activation, affine=affine)
        layers += _conv_bn(
            mid_channels,
            mid_channels,
            kernel_size,
            stride=stride,
            groups=mid_channels,
            activation=activation,
            affine=affine,
        )
        if se_channels:
            layers.append(SqueezeExcite(mid_channels, se_channels, activation))
        layers += _conv_bn(mid_channels, out_channels, 1, affine=affine)
        self.layers = nn.Sequential(*layers)
        self.has_residual = stride == 1 and in_channels == out_channels
        self.drop_connect = drop_connect

    def forward(self, features_BCHW: Tensor) -> Tensor:
        """Returns features at the stride's resolution."""
        out_BCHW: Tensor = self.layers(features_BCHW)
        if not self.has_residual:
            return out_BCHW
        if self.training and self.drop_connect > 0:
            keep = 1 - self.drop_connect
            kept_B111 = torch.rand(len(out_BCHW), 1, 1, 1, device=out_BCHW.device) < keep
            out_BCHW = out_BCHW * kept_B111.to(out_BCHW.dtype) / keep
        return features_BCHW + out_BCHW


def _conv_bn(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    stride: int = 1,
    groups: int = 1,
    activation: Activation | None = None,
    affine: bool = True,
) -> list[nn.Module]:
    padding = kernel_size // 2
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels, affine=affine, track_running_stats=affine),
    ]
    return layers if activation is None else [*layers, make_activation(activation)]


def conv_bn(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    stride: int = 1,
    activation: Activation | None = None,
    affine: bool = True,
) -> nn.Sequential:
    """Convolution without bias, same padding, batch norm and, maybe, an activation.

    `affine` as in `MBConv`.
    """
    layers = _conv_bn(
        in_channels, out_channels, kernel_size, stride=stride, activation=activation, affine=affine
    )
    return nn.Sequential(*layers)
