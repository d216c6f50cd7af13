"""Search checkpoints of the published implementation: `searched_model_XX.pth.tar`.

Source: TF-NAS, the published implementation: `state_dict` with a `log_alphas` per block and a `betas` per
stage, and `mc_mask_dddict`, stage -> block -> index of the operator -> 0/1 mask of its mid channels.
"""

import io
import math
import pickle
import pickletools
import re
import reprlib
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nas.foundation.checkpoint import load_torch
from nas.foundation.errors import UserError
from nas.foundation.files import read_file
from nas.foundation.pickles import check_pickle
from nas.space.architecture import Architecture, LayerChoice
from nas.space.macro_space import LayerSpec, Space

_PREFIX = "module."
"""Before each name, since the published search wraps its network in `DataParallel`."""

_GLOBALS = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_(tensor_v2|parameter)"
    r"|torch (Double|Float|Half|BFloat16|Long|Int|Short|Char|Byte|Bool)Storage"
)
"""What a checkpoint may name. torch admits more, with which a small file could fill the memory."""

_ZIP_MAGIC = b"PK\x03\x04"
_NUM_LEGACY_PICKLES = 5
"""Files of torch before 1.6: number, version, machine, content, names of the storages."""


def load_search_checkpoint(path: str | Path, space: Space) -> Architecture:
    """Reads the architecture that a published search arrived at. Runs no code of the file.

    In each stage the layers up to the highest beta are kept, each with the operator of its highest alpha,
    and with as many mid channels as the operator's mask has ones. Of equal values the first counts.

    Raises:
        UserError: the file is missing or damaged, holds anything but tensors, numbers and dictionaries, or
            is not of a search of the space.
    """
    content = read_file(path, "a search checkpoint")
    try:
        return _Checkpoint(_load(content), space).read()
    except _CheckpointError as error:
        raise UserError(f"{path}: {error}") from None
    # A damaged file can raise almost anything.
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"{path}: not a search checkpoint, or damaged: {reason}; copy the file from its origin again"
        ) from None


class _CheckpointError(ValueError):
    """The checkpoint is not of a search of the space; one line without the file's path."""


class _Checkpoint:
    """The content of a file, compared with a space."""

    def __init__(self, content: Any, space: Space) -> None:
        self._space = space
        self._parameters = _parameters(_section(content, "state_dict"))
        self._masks = _section(content, "mc_mask_dddict")

    def read(self) -> Architecture:
        """Returns the architecture.

        Raises:
            _CheckpointError: something is missing, is there in excess, or has an impossible value.
        """
        self._check_names()
        stages = tuple(self._read_stage(stage) for stage in range(len(self._space.stages)))
        return Architecture(space=self._space.name, stages=stages)

    def _check_names(self) -> None:
        space = self._space
        layers = space.layers
        stages = [_stage_name(stage) for stage in range(len(space.stages))]
        names = {f"{stage}.betas" for stage in stages} | {f"{_place(layer)}.log_alphas" for layer in layers}
        self._check_keys("state_dict", self._parameters, names)
        self._check_keys("mc_mask_dddict", self._masks, stages)
        for stage, name in enumerate(stages):
            blocks = [_block_name(layer) for layer in space.stage_layers(stage)]
            self._check_keys(f"mc_mask_dddict.{name}", self._masks[name], blocks)
        for layer in layers:
            masks = self._masks[_stage_name(layer.stage)][_block_name(layer)]
            self._check_keys(f"mc_mask_dddict.{_place(layer)}", masks, range(len(space.ops)))

    def _check_keys(self, where: str, found: Any, expected: Iterable[Any]) -> None:
        if not isinstance(found, dict):
            raise _CheckpointError(f"{where}: must be a dictionary; use the file as the search wrote it")
        depths = ", ".join(str(stage.num_layers) for stage in self._space.stages)
        shape = f"'{self._space.name}' has stages of {depths} layers with {len(self._space.ops)} candidates"
        expected = list(expected)
        for key in expected:
            if key not in found:
                raise _CheckpointError(f"{where}: no {key!r}; {shape}; name the space of the search")
        for key in found:
            if key not in expected:
                raise _CheckpointError(
                    f"{where}: has {reprlib.repr(key)}; {shape}; name the space of the search"
                )

    def _read_stage(self, stage: int) -> tuple[LayerChoice, ...]:
        layers = self._space.stage_layers(stage)
        choices = [self._read_layer(layer) for layer in layers]
        min_depth = self._space.min_depth(stage)
        betas = self._parameter(f"{_stage_name(stage)}.betas", len(layers) - min_depth + 1)
        return tuple(choices[: min_depth + _argmax(betas)])

    def _read_layer(self, layer: LayerSpec) -> LayerChoice:
        log_alphas = self._parameter(f"{_place(layer)}.log_alphas", len(self._space.ops))
        widths = [self._read_width(layer, index) for index in range(len(self._space.ops))]
        chosen = _argmax(log_alphas)
        return LayerChoice(op=self._space.ops[chosen].name, mid_channels=widths[chosen])

    def _parameter(self, name: str, num_values: int) -> list[float]:
        return _numbers(self._parameters[name], num_values, f"state_dict.{name}")

    def _read_width(self, layer: LayerSpec, index: int) -> int:
        op = self._space.ops[index]
        low, high = op.width_interval(layer.in_channels)
        where = f"mc_mask_dddict.{_place(layer)}[{index}]"
        mask = _numbers(self._masks[_stage_name(layer.stage)][_block_name(layer)][index], high, where)
        for value in mask:
            if value not in (0, 1):
                raise _CheckpointError(f"{where}: has {value}; a mask has only 0 and 1; check the file")
        width = int(sum(mask))
        if not low <= width <= high:
            raise _CheckpointError(
                f"{where}: {width} active channels; '{op.name}' takes {low} to {high} here; check the file"
            )
        return width


def _load(content: bytes) -> Any:
    """Reads what torch saved, now or before version 1.6.

    Raises:
        Exception: of nearly any kind, if the content is damaged or holds more than it may.
    """
    is_zip = content.startswith(_ZIP_MAGIC)
    for pickled in _zipped_pickles(content) if is_zip else _legacy_pickles(content):
        check_pickle(pickled)
        for opcode, argument, _ in pickletools.genops(pickled):
            if opcode.name == "STACK_GLOBAL":
                raise pickle.UnpicklingError("it is a pickle that torch did not write")
            if opcode.name == "GLOBAL" and not _GLOBALS.fullmatch(str(argument)):
                raise pickle.UnpicklingError(f"it asks for {str(argument).replace(' ', '.')}")
    with warnings.catch_warnings():
        # torch warns of files that are not quite as it writes them; what matters of that is an error here.
        warnings.simplefilter("ignore")
        if is_zip:
            return load_torch(content)
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _zipped_pickles(content: bytes) -> list[bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [member for member in archive.infolist() if member.filename.lower().endswith(".pkl")]
        if sum(member.file_size for member in members) > len(content):
            raise ValueError("it unpacks to more than its own size")
        return [archive.read(member) for member in members]


def _legacy_pickles(content: bytes) -> Iterator[bytes]:
    """One after the other, since what comes after a wrong one need not be a pickle at all."""
    stream = io.BytesIO(content)
    for _ in range(_NUM_LEGACY_PICKLES):
        start = stream.tell()
        for _ in pickletools.genops(stream):
            pass
        yield content[start : stream.tell()]


def _section(content: Any, name: str) -> dict[Any, Any]:
    section = content.get(name) if isinstance(content, dict) else None
    if not isinstance(section, dict):
        raise _CheckpointError(
            f"no dictionary '{name}'; name a searched_model_XX.pth.tar, as the published search writes it"
        )
    return section


def _parameters(state_dict: dict[Any, Any]) -> dict[str, Any]:
    """The alphas and betas of all weights, by their names without the prefix."""
    parameters: dict[str, Any] = {}
    for key, value in state_dict.items():
        if isinstance(key, str) and key.endswith((".log_alphas", ".betas")):
            name = key.removeprefix(_PREFIX)
            if name in parameters:
                raise _CheckpointError(f"state_dict: '{name}' is there with and without '{_PREFIX}'")
            parameters[name] = value
    return parameters


def _numbers(values: Any, num_values: int, where: str) -> list[float]:
    """The finite numbers of a vector, which may be a tensor or a list."""
    if isinstance(values, Tensor):
        shape: tuple[int, ...] | None = tuple(values.shape)
    else:
        shape = (len(values),) if isinstance(values, list | tuple) else None
    # A tensor can claim any size: look before reading it.
    if shape != (num_values,):
        shown = f"has shape {shape}" if shape is not None else "is no vector"
        raise _CheckpointError(f"{where}: {shown}, not {(num_values,)}; name the space of the search")
    numbers: list[float] = values.tolist() if isinstance(values, Tensor) else list(values)
    for number in numbers:
        if not isinstance(number, int | float) or not math.isfinite(number):
            raise _CheckpointError(
                f"{where}: has {reprlib.repr(number)}, no finite number; use the checkpoint of another epoch"
            )
    return numbers


def _argmax(values: list[float]) -> int:
    return values.index(max(values))


def _stage_name(stage: int) -> str:
    return f"stage{stage + 1}"


def _block_name(layer: LayerSpec) -> str:
    return f"block{layer.index + 1}"


def _place(layer: LayerSpec) -> str:
    return f"{_stage_name(layer.stage)}.{_block_name(layer)}"
