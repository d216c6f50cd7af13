"""Macro search spaces as data.

To add one, register a record in `SPACES`.

Source: TF-NAS, search space, and its table of the macro architecture.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

from nas.foundation.registry import Registry
from nas.space.operators import OPERATORS, PAPER_OPERATORS, SKIP_OP_NAME, Activation, CandidateOp


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
    def label(self) -> str:
        """Stage and layer as people count them, from 1: `2.1`."""
        return f"{self.stage + 1}.{self.index + 1}"

    @property
    def keeps_shape(self) -> bool:
        """Whether the output has the input's shape, so that identity could stand in its place."""
        return self.stride == 1 and self.in_channels == self.out_channels


@dataclass(frozen=True)
class Space:
    """A macro space: stem convolution, stem block, searchable stages, head, classifier.

    The stem block is an MBConv k3 of stride 1 without expansion; stem and stem block use ReLU.

    Attributes:
        operators: names of the candidate operators, in the order of alpha. `skip` among them makes
            identity a candidate wherever a layer keeps its shape, also in the sink space.
        head_activation: of the convolution after the last stage.
        has_stem_se: whether the stem block has squeeze-and-excitation, with a quarter of its channels.
    """

    name: str
    resolution: int
    stem_channels: int
    stem_stride: int
    stem_block_channels: int
    stages: tuple[StageSpec, ...]
    head_channels: int
    operators: tuple[str, ...] = PAPER_OPERATORS
    head_activation: Activation = "swish"
    has_stem_se: bool = True

    @cached_property
    def ops(self) -> tuple[CandidateOp, ...]:
        """The candidate operators but for identity, in the order of alpha."""
        return tuple(OPERATORS[name] for name in self.operators if name != SKIP_OP_NAME)

    @property
    def has_identity(self) -> bool:
        """Whether identity is among the operators of the space itself."""
        return SKIP_OP_NAME in self.operators

    @property
    def candidate_names(self) -> tuple[str, ...]:
        """Names of the operators, and last that of identity, whether or not a search has it."""
        return (*(op.name for op in self.ops), SKIP_OP_NAME)

    def op(self, name: str) -> CandidateOp:
        """The operator of that name.

        Raises:
            ValueError: it is none of the space's.
        """
        for op in self.ops:
            if op.name == name:
                return op
        raise ValueError(f"'{name}'; use one of {', '.join(op.name for op in self.ops)}")

    @property
    def stem_se_channels(self) -> int:
        """Reduced channels of the stem block's squeeze-and-excitation; 0 without it."""
        return self.stem_channels // 4 if self.has_stem_se else 0

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

    def stage_layers(self, stage: int) -> tuple[LayerSpec, ...]:
        """The layers of one stage, first to last."""
        return tuple(layer for layer in self.layers if layer.stage == stage)

    def min_depth(self, stage: int) -> int:
        """Fewest layers that a stage may keep: 0 only where its first layer keeps the shape."""
        return 0 if self.stage_layers(stage)[0].keeps_shape else 1

    def num_sink_encodings(self) -> int:
        """Number of encodings of the sink space: a depth and the operators of the kept layers.

        Equal to its number of distinct networks (at fixed widths), by construction, unless identity is
        among the operators.
        """
        product = 1
        for stage, spec in enumerate(self.stages):
            choices = [
                len(self.ops) + (self.has_identity and layer.keeps_shape)
                for layer in self.stage_layers(stage)
            ]
            product *= sum(
                prod(choices[:depth]) for depth in range(self.min_depth(stage), spec.num_layers + 1)
            )
        return product

    def num_skip_encodings(self) -> int:
        """Number of encodings of the skip space: a candidate per layer, identity among them."""
        return prod(len(self.ops) + layer.keeps_shape for layer in self.layers)

    def num_networks(self) -> int:
        """Number of distinct networks (at fixed widths) behind the encodings of either depth space.

        Within a stage the layers that can be skipped all have one shape, so a network is the
        sequence of operators that are kept.
        """
        return prod(
            sum(len(self.ops) ** depth for depth in range(self.min_depth(stage), spec.num_layers + 1))
            for stage, spec in enumerate(self.stages)
        )

    def at_resolution(self, resolution: int) -> "Space":
        """The same space for another input resolution, in pixels."""
        return replace(self, resolution=resolution)


def _stages(table: str) -> tuple[StageSpec, ...]:
    """Stages from a table with a row for each: out channels, layers, stride, activation."""
    rows = (row.split() for row in table.strip().splitlines())
    return tuple(
        StageSpec(int(out_channels), int(num_layers), int(stride), _ACTIVATIONS[name])
        for out_channels, num_layers, stride, name in rows
    )


_ACTIVATIONS: dict[str, Activation] = {"relu": "relu", "swish": "swish"}

PAPER = Space(
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
)

PAPER_NO_SE = replace(PAPER, name="paper_no_se", operators=PAPER_OPERATORS[:4])
"""The paper's space without squeeze-and-excitation among the candidates."""

PAPER_NO_SE_NO_SWISH = replace(
    PAPER_NO_SE,
    name="paper_no_se_no_swish",
    stages=tuple(replace(stage, activation="relu") for stage in PAPER.stages),
    head_activation="relu",
    has_stem_se=False,
)
"""The paper's space with ReLU, and without squeeze-and-excitation, everywhere."""

SMALL32 = replace(
    PAPER,
    name="small32",
    resolution=32,
    stem_stride=1,
    stages=(replace(PAPER.stages[0], stride=1), *PAPER.stages[1:]),
)
"""The paper's space for 32x32 images: the stem and the first stage keep the resolution."""

MICRO = Space(
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
)
"""Sized for whole searches in a minute on one core, deep enough for depth to move."""

NANO = Space(
    name="nano",
    resolution=28,
    stem_channels=4,
    stem_stride=2,
    stem_block_channels=4,
    stages=_stages(
        """
        8   2  2  relu
        16  2  2  swish
        """
    ),
    head_channels=32,
    operators=PAPER_OPERATORS[:4],
)
"""So small that each of its 400 networks can be trained from scratch, see docs/oracle.md.

And so narrow that they differ: with twice the channels, their accuracies differ half as much.
"""

SPACES: Registry[Space] = Registry(
    "space",
    {space.name: space for space in (PAPER, PAPER_NO_SE, PAPER_NO_SE_NO_SWISH, SMALL32, MICRO, NANO)},
)
"""Every macro space that a config may name."""


def get_space(name: str) -> Space:
    """Returns the macro space of that name.

    Raises:
        UserError: there is none.
    """
    return SPACES[name]
