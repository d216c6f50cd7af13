"""Lookup tables: the latency of every candidate operator at every width.

Source: TF-NAS, latency model; the key's fields are those of the published tables.
"""

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from scipy.interpolate import PchipInterpolator

from nas.architecture import Architecture
from nas.errors import UserError
from nas.ops import CANDIDATE_OPS, Activation, CandidateOp
from nas.space import LayerSpec, Space, get_space
from nas.validation import first_error, read_json

SCHEMA_VERSION = 1
Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class OpKey(_Record):
    """What an operator's latency depends on, but for its mid channels.

    `resolution` is that of the input, in pixels; `se_channels` is 0 without squeeze-and-excitation.
    """

    resolution: int
    in_channels: int
    se_channels: int
    out_channels: int
    kernel_size: int
    stride: int
    activation: Activation

    @classmethod
    def of(cls, layer: LayerSpec, op: CandidateOp) -> Self:
        """The key of a candidate operator in a layer."""
        return cls(
            resolution=layer.resolution,
            in_channels=layer.in_channels,
            se_channels=op.se_channels(layer.in_channels),
            out_channels=layer.out_channels,
            kernel_size=op.kernel_size,
            stride=layer.stride,
            activation=layer.activation,
        )

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self)


class LatencyEntry(_Record):
    """Latencies of one key at the widths that were measured (or imported), ascending.

    Between them latency is interpolated, monotonically between neighbours; never beyond them.
    `iqr_ms` is the interquartile range of each measurement; None in imported tables.
    """

    key: OpKey
    widths: Annotated[tuple[int, ...], Field(strict=False, min_length=1)]
    latency_ms: Annotated[tuple[Finite, ...], Field(strict=False)]
    iqr_ms: Annotated[tuple[Finite, ...] | None, Field(strict=False)] = None

    @model_validator(mode="after")
    def _is_a_curve(self) -> Self:
        if len(self.latency_ms) != len(self.widths) or len(self.iqr_ms or self.widths) != len(self.widths):
            raise ValueError(f"({self.key}): widths and latencies differ in number; make the table again")
        if any(b <= a for a, b in zip(self.widths, self.widths[1:], strict=False)) or self.widths[0] < 1:
            raise ValueError(f"({self.key}): widths must be positive and ascend; make the table again")
        return self

    @cached_property
    def curve_ms(self) -> NDArray[np.float64]:
        """Latency of each integer width, indexed by width; NaN below the lowest."""
        widths = np.array(self.widths)
        curve = np.full(widths[-1] + 1, np.nan)
        curve[widths] = self.latency_ms
        if len(widths) > 1:
            between = np.setdiff1d(np.arange(widths[0], widths[-1]), widths)
            curve[between] = PchipInterpolator(widths, self.latency_ms)(between)
        return curve


class Provenance(_Record):
    """Where a table comes from: enough to know what its numbers mean and when they hold."""

    source: Literal["measured", "imported", "synthetic"]
    device_type: str
    device_name: str
    num_threads: int | None = None
    batch_size: int | None = None
    torch_version: str | None = None
    measured_on: str | None = None
    note: str | None = None


class LatencyTable(_Record):
    """The lookup table of a space: latency = base + sum over kept layers of their entries, in ms.

    Attributes:
        space: name of the space whose every candidate operator the entries cover.
        base_ms: latency of all that is not searched: stems, head, classifier.
    """

    schema_version: int = SCHEMA_VERSION
    unit: Literal["ms"] = "ms"
    space: str
    base_ms: Finite
    provenance: Provenance
    entries: Annotated[tuple[LatencyEntry, ...], Field(strict=False)]

    @cached_property
    def _entry_of(self) -> dict[OpKey, LatencyEntry]:
        return {entry.key: entry for entry in self.entries}

    @property
    def base_latency_ms(self) -> float:
        """Latency of all that is not searched, in ms."""
        return self.base_ms

    def curve_ms(self, layer: LayerSpec, op: CandidateOp) -> NDArray[np.float64]:
        """Latency of an operator in a layer at each width, indexed by mid channels, in ms.

        Raises:
            UserError: the table has no such key, or not the whole width interval.
        """
        key = OpKey.of(layer, op)
        if key not in self._entry_of:
            raise UserError(f"latency table of '{self.space}': no entry for {key}; measure the table again")
        curve = self._entry_of[key].curve_ms
        low, high = op.width_interval(layer.in_channels)
        if len(curve) <= high or np.isnan(curve[low]):
            raise UserError(
                f"latency table of '{self.space}': {key} lacks widths {low} to {high}; "
                "measure the table again"
            )
        return curve

    def layer_latencies_ms(self, architecture: Architecture) -> tuple[float, ...]:
        """Latency of each kept layer, in ms."""
        return tuple(float(self.curve_ms(layer, op)[width]) for layer, op, width in architecture.layers)

    def latency_ms(self, architecture: Architecture) -> float:
        """Latency of a derived network, in ms.

        Raises:
            UserError: the architecture is of another space, or an entry is missing.
        """
        if architecture.space != self.space:
            raise UserError(
                f"latency table: is of space '{self.space}', the architecture of '{architecture.space}'; "
                "use the table of its space"
            )
        return self.base_latency_ms + sum(self.layer_latencies_ms(architecture))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that the table says, in hexadecimal."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def save(self, path: str | Path) -> None:
        """Writes the table as JSON."""
        text = json.dumps(self.model_dump(mode="json", exclude_none=True), indent=1)
        Path(path).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads a table.

        Raises:
            UserError: the file is missing, truncated, of another schema or unit, or inconsistent.
        """
        content: Any = read_json(path, "a latency table")
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise UserError(f"{path}: {first_error(error)}") from None


def space_keys(space: Space) -> dict[OpKey, tuple[int, int]]:
    """Each distinct key of a space, with the lowest and highest width that it must cover."""
    intervals: dict[OpKey, tuple[int, int]] = {}
    for layer in space.layers:
        for op in CANDIDATE_OPS:
            key, (low, high) = OpKey.of(layer, op), op.width_interval(layer.in_channels)
            known_low, known_high = intervals.get(key, (low, high))
            intervals[key] = (min(low, known_low), max(high, known_high))
    return intervals


def reachable_interval_ms(table: LatencyTable, space: Space | None = None) -> tuple[float, float]:
    """Lowest and highest latency over all networks of the space, in ms."""
    space = space or get_space(table.space)
    low_ms = high_ms = table.base_latency_ms
    for stage in range(len(space.stages)):
        lows, highs = [], []
        for layer in space.stage_layers(stage):
            curves = [_interval_curve(table, layer, op) for op in CANDIDATE_OPS]
            lows.append(min(float(curve.min()) for curve in curves))
            highs.append(max(float(curve.max()) for curve in curves))
        low_ms += sum(lows[: space.min_depth(stage)])
        high_ms += sum(highs)
    return low_ms, high_ms


def _interval_curve(table: LatencyTable, layer: LayerSpec, op: CandidateOp) -> NDArray[np.float64]:
    low, high = op.width_interval(layer.in_channels)
    return table.curve_ms(layer, op)[low : high + 1]
