"""Architectures as the published implementation writes them: files that end in `.config`.

Source: TF-NAS, the published implementation: JSON with a record per layer. Stages are lists of MBConv
blocks; a block has its kernel, stride, channels and activation, but not the name of its operator.
"""

import reprlib
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from nas.foundation.errors import InputWarning, UserError
from nas.foundation.validation import first_error, read_json
from nas.space.architecture import Architecture, LayerChoice
from nas.space.macro_space import SPACES, LayerSpec, Space
from nas.space.operators import CandidateOp

PUBLISHED_SUFFIX = ".config"

_STAGE = "stage"
_FIXED_LAYERS = ("first_stem", "second_stem", "feature_mix_layer", "classifier")


class _PublishedLayer(BaseModel):
    """What convolutions and blocks share. Fields with a default are equal in every network of ours."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    in_channels: int
    out_channels: int
    kernel_size: int
    stride: int
    act_func: str
    groups: Literal[1] = 1
    has_shuffle: Literal[False] = False
    bias: Literal[False] = False
    use_bn: Literal[True] = True
    affine: Literal[True] = True


class _PublishedConv(_PublishedLayer):
    name: Literal["ConvLayer"]
    ops_order: Literal["weight_bn_act"] = "weight_bn_act"


class _PublishedBlock(_PublishedLayer):
    name: Literal["MBInvertedResBlock"]
    mid_channels: int
    se_channels: int


class _PublishedClassifier(BaseModel):
    """The number of classes is not read: it belongs to the data set."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    name: Literal["LinearLayer"]
    in_features: int
    bias: Literal[True] = True
    use_bn: Literal[False] = False
    act_func: None = None


class _PublishedNetwork(BaseModel):
    """A whole file; its stages are the fields `stage1`, `stage2` and so on."""

    model_config = ConfigDict(frozen=True, strict=True, extra="allow")
    __pydantic_extra__: dict[str, list[_PublishedBlock]]

    first_stem: _PublishedConv
    second_stem: _PublishedBlock
    feature_mix_layer: _PublishedConv
    classifier: _PublishedClassifier

    @property
    def stages(self) -> dict[str, list[_PublishedBlock]]:
        return self.__pydantic_extra__


class _MismatchError(ValueError):
    """The file describes no network of a space.

    Attributes:
        num_equal: number of fields before this one that agree with the space.
    """

    def __init__(self, message: str, num_equal: int) -> None:
        super().__init__(message)
        self.num_equal = num_equal


class _Reading:
    """Reads a file as a network of one space, from the stem to the classifier.

    Attributes:
        ambiguities: the layers whose operator the file leaves open, in words.
    """

    def __init__(self, space: Space) -> None:
        self.ambiguities: list[str] = []
        self._space = space
        self._num_equal = 0

    def read(self, network: _PublishedNetwork) -> Architecture:
        """Returns the architecture.

        Raises:
            _MismatchError: a field differs from what the space has.
        """
        self._check_stem(network)
        stages = tuple(self._read_stage(network, stage) for stage in range(len(self._space.stages)))
        names = {_stage_name(stage) for stage in range(len(stages))}
        if excess := sorted(network.stages.keys() - names):
            raise self._mismatch(excess[0], "must be absent")
        self._check_head(network)
        return Architecture(space=self._space.name, stages=stages)

    def _check_stem(self, network: _PublishedNetwork) -> None:
        space = self._space
        stem = {
            "in_channels": 3,
            "out_channels": space.stem_channels,
            "kernel_size": 3,
            "stride": space.stem_stride,
            "act_func": "relu",
        }
        self._check("first_stem", network.first_stem, stem)
        block = {
            "in_channels": space.stem_channels,
            "mid_channels": space.stem_channels,
            "se_channels": space.stem_se_channels,
            "out_channels": space.stem_block_channels,
            "kernel_size": 3,
            "stride": 1,
            "act_func": "relu",
        }
        self._check("second_stem", network.second_stem, block)

    def _check_head(self, network: _PublishedNetwork) -> None:
        space = self._space
        head = {
            "in_channels": space.stages[-1].out_channels,
            "out_channels": space.head_channels,
            "kernel_size": 1,
            "stride": 1,
            "act_func": space.head_activation,
        }
        self._check("feature_mix_layer", network.feature_mix_layer, head)
        self._check("classifier", network.classifier, {"in_features": space.head_channels})

    def _read_stage(self, network: _PublishedNetwork, stage: int) -> tuple[LayerChoice, ...]:
        name = _stage_name(stage)
        layers = self._space.stage_layers(stage)
        blocks = network.stages.get(name, [])
        depths = range(self._space.min_depth(stage), len(layers) + 1)
        self._check_is_one_of(f"number of blocks of {name}", len(blocks), depths)
        return tuple(
            self._read_block(f"{name}[{index}]", block, layer)
            for index, (block, layer) in enumerate(zip(blocks, layers, strict=False))
        )

    def _read_block(self, place: str, block: _PublishedBlock, layer: LayerSpec) -> LayerChoice:
        fixed = {
            "in_channels": layer.in_channels,
            "out_channels": layer.out_channels,
            "stride": layer.stride,
            "act_func": layer.activation,
        }
        self._check(place, block, fixed)
        op = self._find_op(place, block)
        return LayerChoice(op=op.name, mid_channels=block.mid_channels)

    def _find_op(self, place: str, block: _PublishedBlock) -> CandidateOp:
        """The operator that kernel, squeeze-and-excitation and width allow; the widest, if there are two."""
        in_channels, width = block.in_channels, block.mid_channels
        ops = self._space.ops
        self._check_is_one_of(f"{place}.kernel_size", block.kernel_size, {op.kernel_size for op in ops})
        ops = tuple(op for op in ops if op.kernel_size == block.kernel_size)
        allowed = {op.se_channels(in_channels) for op in ops}
        self._check_is_one_of(f"{place}.se_channels", block.se_channels, allowed)
        ops = tuple(op for op in ops if op.se_channels(in_channels) == block.se_channels)
        intervals = {op: op.width_interval(in_channels) for op in ops}
        ops = tuple(op for op, (low, high) in intervals.items() if low <= width <= high)
        if not ops:
            shown = " or ".join(f"{low} to {high}" for low, high in intervals.values())
            raise self._mismatch(f"{place}.mid_channels", f"{reprlib.repr(width)}; must be {shown}")
        chosen = max(ops, key=lambda op: op.expansion)
        if len(ops) > 1:
            names = " or ".join(op.name for op in ops)
            self.ambiguities.append(f"{place} ({width} mid channels: {names}, read as {chosen.name})")
        return chosen

    def _check(self, place: str, layer: BaseModel, fields: Mapping[str, object]) -> None:
        for name, expected in fields.items():
            self._check_is_one_of(f"{place}.{name}", getattr(layer, name), {expected})

    def _check_is_one_of(self, field: str, value: Any, allowed: Collection[Any]) -> None:
        if value not in allowed:
            shown = " or ".join(map(str, sorted(allowed)))
            raise self._mismatch(field, f"{reprlib.repr(value)}; must be {shown}")
        self._num_equal += 1

    def _mismatch(self, field: str, problem: str) -> _MismatchError:
        return _MismatchError(f"{field}: {problem}", self._num_equal)


def load_published_architecture(path: str | Path) -> Architecture:
    """Reads a `.config` file as a network of the first registered space that it fits.

    The file has no resolution: that is the space's. Without squeeze-and-excitation, a width of four times
    the input channels belongs to two operators; the larger one is taken, with an
    `InputWarning`. The network is the same either way.

    Raises:
        UserError: the file is missing or damaged, or fits no registered space. The message compares it with
            the space that agrees with it furthest.
    """
    network = _parse(read_json(path, "a published architecture"), path)
    closest: tuple[str, _MismatchError] | None = None
    for space in SPACES.values():
        reading = _Reading(space)
        try:
            architecture = reading.read(network)
        except _MismatchError as mismatch:
            if closest is None or mismatch.num_equal > closest[1].num_equal:
                closest = space.name, mismatch
            continue
        if reading.ambiguities:
            warnings.warn(
                f"{path}: two operators fit {', '.join(reading.ambiguities)}; the network is the same "
                "either way",
                InputWarning,
                stacklevel=2,
            )
        return architecture
    assert closest is not None
    raise UserError(
        f"{path}: {closest[1]} in space '{closest[0]}', the closest; correct the file, or register its space"
    )


def _parse(content: Any, path: str | Path) -> _PublishedNetwork:
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a published architecture: it is no JSON object; check the file")
    known = {
        name: value for name, value in content.items() if name in _FIXED_LAYERS or name.startswith(_STAGE)
    }
    try:
        return _PublishedNetwork.model_validate(known)
    except ValidationError as error:
        remedy = "" if error.errors()[0]["type"] == "missing" else "; correct the file"
        raise UserError(f"{path}: {first_error(error)}{remedy}") from None


def _stage_name(stage: int) -> str:
    """The name of a stage in published files, which count from 1."""
    return f"{_STAGE}{stage + 1}"
