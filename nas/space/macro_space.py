"""Macro search spaces as data.

Source: TF-NAS, search space, and its table of the macro architecture.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

from nas.foundation.errors import UserError
from nas.space.operators import CANDIDATE_OPS, Activation


@dataclass(frozen=True)
class StageSpec:
    """A searchable stage: `num_layers` layers at most, the first of which has the stride."""

    out_channels: int
    num_layers: int
    stride: int
    activation: Activation


@dataclass(frozen=True)
class LayerSpec:
    """One searchable layer, as the space fixes it: everything but operator and width.

    `stage` and `index` count from 0; `resolution` is that of the layer's input, in pixels.
    """

    stage: int
    index: int
    in_channels: int
    out_channels: int
    stride: int
    activation: Activation
    resolution: int

    @property
    def keeps_shape(self) -> bool:
        """Whether the output has the input's shape, so that identity could stand in its place."""
        return self.stride == 1 and self.in_channels == self.out_channels


@dataclass(frozen=True)
class Space:
    """A macro space: stem convolution, stem block, searchable stages, head, classifier.

    The stem block is an MBConv k3 of stride 1 without expansion, with squeeze-and-excitation
    of a quarter of its channels; stem and stem block use ReLU, the head uses Swish.
    """

    name: str
    resolution: int
    stem_channels: int
    stem_stride: int
    stem_block_channels: int
    stages: tuple[StageSpec, ...]
    head_channels: int

    @property
    def stem_se_channels(self) -> int:
        """Reduced channels of the stem block's squeeze-and-excitation."""
        return self.stem_channels // 4

    @cached_property
    def layers(self) -> tuple[LayerSpec, ...]:
        """All searchable layers, in the order of alpha's rows."""
        layers = []
        resolution = -(-self.resolution // self.stem_stride)
        in_channels = self.stem_block_channels
        for stage_index, stage in enumerate(self.stages):
            for index in range(stage.num_layers):
                stride = stage.stride if index == 0 else 1
                layers.append(
                    LayerSpec(
                        stage_index,
                        index,
                        in_channels,
                        stage.out_channels,
                        stride,
                        stage.activation,
                        resolution,
                    )
                )
                in_channels = stage.out_channels
                resolution = -(-resolution // stride)
        return tuple(layers)

    @property
    def final_resolution(self) -> int:
        """Resolution of the head convolution, in pixels."""
        last = self.layers[-1]
        return -(-last.resolution // last.stride)

    def stage_layers(self, stage: int) -> tuple[LayerSpec, ...]:
        """The layers of one stage, first to last."""
        return tuple(layer for layer in self.layers if layer.stage == stage)

    def min_depth(self, stage: int) -> int:
        """Fewest layers that a stage may keep: 0 only where its first layer keeps the shape."""
        return 0 if self.stage_layers(stage)[0].keeps_shape else 1

    def num_sink_encodings(self) -> int:
        """Number of encodings of the sink space: a depth and the operators of the kept layers.

        Equal to its number of distinct networks (at fixed widths), by construction.
        """
        num_ops = len(CANDIDATE_OPS)
        return prod(
            sum(num_ops**depth for depth in range(self.min_depth(stage), spec.num_layers + 1))
            for stage, spec in enumerate(self.stages)
        )

    def num_skip_encodings(self) -> int:
        """Number of encodings of the skip space: a candidate a layer, identity among them."""
        return prod(len(CANDIDATE_OPS) + layer.keeps_shape for layer in self.layers)

    def num_skip_networks(self) -> int:
        """Number of distinct networks (at fixed widths) behind the skip space's encodings.

        Within a stage the layers that can be skipped all have one shape, so a network is the
        sequence of operators that were not skipped: the same networks as the sink space's.
        """
        return self.num_sink_encodings()

    def at_resolution(self, resolution: int) -> "Space":
        """The same space for another input resolution, in pixels."""
        return replace(self, resolution=resolution)


def _stages(table: str) -> tuple[StageSpec, ...]:
    rows = (row.split() for row in table.strip().splitlines())
    return tuple(
        StageSpec(int(out_channels), int(num_layers), int(stride), _activation(name))
        for out_channels, num_layers, stride, name in rows
    )


def _activation(name: str) -> Activation:
    return "relu" if name == "relu" else "swish"


_SPACES = {
    space.name: space
    for space in (
        Space(
            name="paper",
            resolution=224,
            stem_channels=32,
            stem_stride=2,
            stem_block_channels=16,
            stages=_stages(
                """
                24   2  2  relu
                40   3  2  swish
                80   4  2  swish
                112  4  1  swish
                192  4  2  swish
                320  1  1  swish
                """
            ),
            head_channels=1280,
        ),
        # The paper's space for 32x32 images: the stem and the first stage keep the resolution.
        Space(
            name="small32",
            resolution=32,
            stem_channels=32,
            stem_stride=1,
            stem_block_channels=16,
            stages=_stages(
                """
                24   2  1  relu
                40   3  2  swish
                80   4  2  swish
                112  4  1  swish
                192  4  2  swish
                320  1  1  swish
                """
            ),
            head_channels=1280,
        ),
        # Sized for whole searches in a minute on one core, deep enough for depth to move.
        Space(
            name="micro",
            resolution=28,
            stem_channels=8,
            stem_stride=2,
            stem_block_channels=8,
            stages=_stages(
                """
                16  5  2  relu
                32  5  2  swish
                """
            ),
            head_channels=128,
        ),
    )
}


def get_space(name: str) -> Space:
    """Returns the macro space of that name.

    Raises:
        UserError: there is none.
    """
    if name not in _SPACES:
        raise UserError(f"space: no space '{name}'; use one of {', '.join(_SPACES)}")
    return _SPACES[name]


SPACE_NAMES: tuple[str, ...] = tuple(_SPACES)
