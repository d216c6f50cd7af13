"""Size and cost of a derived network by arithmetic, without building it.

`nas.space.profile` counts the same in any network that is built.
"""

from dataclasses import dataclass

from nas.space.architecture import Architecture
from nas.space.macro_space import get_space

MIN_FINAL_RESOLUTION = 4


@dataclass(frozen=True)
class NetworkCost:
    """What a network costs on any device.

    Attributes:
        num_parameters: learnable ones.
        num_macs: multiply-accumulates of the convolutions and the linear layer for one image.
    """

    num_parameters: int
    num_macs: int

    def __add__(self, other: "NetworkCost") -> "NetworkCost":
        return NetworkCost(self.num_parameters + other.num_parameters, self.num_macs + other.num_macs)


def cost_of(architecture: Architecture, num_classes: int, resolution: int) -> NetworkCost:
    """The cost of the network that `make_network` builds for a resolution, in pixels."""
    space = get_space(architecture.space)
    strides = _fitted((space.stem_stride, *(layer.stride for layer, *_ in architecture.layers)), resolution)
    side = _reduced(resolution, strides[0])
    stem, block = space.stem_channels, space.stem_block_channels
    cost = _convolution(3, stem, 3, side) + _block(stem, block, 3, space.stem_se_channels, side)
    for (layer, op, mid_channels), stride in zip(architecture.layers, strides[1:], strict=True):
        reduced = _reduced(side, stride)
        cost += _convolution(layer.in_channels, mid_channels, 1, side)
        se_channels = op.se_channels(layer.in_channels)
        cost += _block(mid_channels, layer.out_channels, op.kernel_size, se_channels, reduced)
        side = reduced
    cost += _convolution(space.stages[-1].out_channels, space.head_channels, 1, side)
    return cost + _linear(space.head_channels, num_classes)


def num_unstrided(num_strided: int, resolution: int) -> int:
    """How many of a network's strided convolutions get stride 1, from the first one on.

    As many as leave the last features `MIN_FINAL_RESOLUTION` pixels a side, or all.

    Args:
        num_strided: number of its convolutions of stride 2.
        resolution: height and width of its images, in pixels.
    """
    num_kept = num_strided
    while num_kept and _reduced(resolution, 2**num_kept) < MIN_FINAL_RESOLUTION:
        num_kept -= 1
    return num_strided - num_kept


def _fitted(strides: tuple[int, ...], resolution: int) -> list[int]:
    """The strides of a network for a resolution, see `num_unstrided`."""
    strided = [position for position, stride in enumerate(strides) if stride == 2]
    unstrided = strided[: num_unstrided(len(strided), resolution)]
    return [1 if position in unstrided else stride for position, stride in enumerate(strides)]


def _block(
    mid_channels: int, out_channels: int, kernel_size: int, se_channels: int, side: int
) -> NetworkCost:
    """An `MBConv` without its expansion; `side` is that of its output, in pixels."""
    depthwise = _convolution(1, mid_channels, kernel_size, side)
    project = _convolution(mid_channels, out_channels, 1, side)
    if not se_channels:
        return depthwise + project
    return depthwise + _linear(mid_channels, se_channels) + _linear(se_channels, mid_channels) + project


def _convolution(in_channels: int, out_channels: int, kernel_size: int, side: int) -> NetworkCost:
    """A convolution without bias, and its batch norm.

    Args:
        in_channels: of each group.
        side: height and width of the output, in pixels.
    """
    num_weights = in_channels * out_channels * kernel_size**2
    return NetworkCost(num_weights + 2 * out_channels, num_weights * side**2)


def _linear(in_channels: int, out_channels: int) -> NetworkCost:
    num_weights = in_channels * out_channels
    return NetworkCost(num_weights + out_channels, num_weights)


def _reduced(side: int, stride: int) -> int:
    """Height and width of what a convolution of a stride makes, in pixels."""
    return -(-side // stride)
