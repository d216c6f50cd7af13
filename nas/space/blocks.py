"""Blocks of networks: the inverted residual block that every candidate operator is, and its parts.

Source: TF-NAS, search space (operator and width levels).
"""

import torch
from torch import Tensor, nn

from nas.space.operators import Activation


def make_activation(activation: Activation) -> nn.Module:
    """Returns the module of an activation name; swish is x * sigmoid(x)."""
    return nn.ReLU(inplace=True) if activation == "relu" else nn.SiLU(inplace=True)


def mean_over_pixels(features_BCHW: Tensor) -> Tensor:
    """The mean of each channel, (B, C)."""
    if features_BCHW.device.type != "cpu":
        return channels_last_mean(features_BCHW)
    return features_BCHW.mean((2, 3))


def channels_last_mean(features_BCHW: Tensor) -> Tensor:
    """The same for features that are channels last, and then its gradient is, too.

    The gradient of a plain mean never is, so that a GPU would copy it, and what follows from it.
    """
    return features_BCHW.permute(0, 2, 3, 1).flatten(1, 2).mean(1)


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
        means_BC11 = mean_over_pixels(features_BCHW)[:, :, None, None]
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
