"""Lookup tables: the latency of every candidate operator at every width.

Source: TF-NAS, latency model; the key's fields are those of the published tables.
"""

import hashlib
import json
from functools import cached_property
from itertools import pairwise
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
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


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

    Attributes:
        latency_ms: what the model uses; in measured tables it never falls as the width grows.
        median_ms: median of each width's repeats, as measured; None in imported tables.
        iqr_ms: their interquartile range.
        num_repeats: their number.
    """

    key: OpKey
    widths: Annotated[tuple[int, ...], Field(strict=False, min_length=1)]
    latency_ms: Annotated[tuple[Finite, ...], Field(strict=False)]
    median_ms: Annotated[tuple[Finite, ...] | None, Field(strict=False)] = None
    iqr_ms: Annotated[tuple[Finite, ...] | None, Field(strict=False)] = None
    num_repeats: Annotated[tuple[int, ...] | None, Field(strict=False)] = None

    @model_validator(mode="after")
    def _is_a_curve(self) -> Self:
        for name in ("latency_ms", "median_ms", "iqr_ms", "num_repeats"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.widths):
                raise ValueError(
                    f"({self.key}): {len(self.widths)} widths, but {len(values)} {name}; make the table again"
                )
        if any(b <= a for a, b in pairwise(self.widths)) or self.widths[0] < 1:
            raise ValueError(f"({self.key}): widths must be positive and ascend; make the table again")
        return self

    @cached_property
    def curve_ms(self) -> NDArray[np.float64]:
        """Latency of each integer width, indexed by width; NaN below the lowest."""
        curve = np.full(self.widths[-1] + 1, np.nan)
        inside = np.arange(self.widths[0], self.widths[-1] + 1)
        curve[inside] = interpolate(np.array(self.widths), np.array(self.latency_ms), inside)
        return curve


def interpolate(
    widths: NDArray[np.int64], latency_ms: NDArray[np.float64], at: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Latency between measured widths: monotone between neighbours, exact at the measured ones.

    Args:
        widths: ascending.
        at: widths to read, none beyond the measured ones.
    """
    assert widths[0] <= at.min()
    assert at.max() <= widths[-1]
    if len(widths) == 1:
        return np.full(len(at), latency_ms[0])
    if len(widths) == widths[-1] - widths[0] + 1:
        return np.asarray(latency_ms[at - widths[0]])
    return np.asarray(PchipInterpolator(widths, latency_ms)(at))


class Provenance(_Record):
    """Where a table comes from: enough to know what its numbers mean and when they hold.

    Attributes:
        device_type: `cpu` or `cuda`.
        num_classes: outputs of the classifier, which is part of the base.
        conditions: how networks were run.
        measured_on: date and time, UTC.
        duration_s: how long the measuring took.
        num_repeats: median over the points of the number of timings.
        spread_percent: median over the points of the interquartile range, relative to the median.
        num_busy_cpus: CPUs that other processes used when the measuring began.
        note: anything else; of an imported table, the file it was read from.
    """

    source: Literal["measured", "imported", "synthetic"]
    device_type: str
    device_name: str
    num_threads: int | None = None
    batch_size: int | None = None
    num_classes: int | None = None
    torch_version: str | None = None
    conditions: str | None = None
    measured_on: str | None = None
    duration_s: Finite | None = None
    num_repeats: int | None = None
    spread_percent: Finite | None = None
    num_busy_cpus: Finite | None = None
    note: str | None = None


class Calibration(_Record):
    """An affine correction, fitted to whole networks: latency = slope * sum of entries + intercept.

    Attributes:
        num_networks: random networks that it was fitted to.
        mape_percent: mean absolute error of the corrected latency on networks left out of the fit.
        half_width_percent: of the 95 % prediction interval of one network, relative to its latency.
        measured_on: date and time, UTC.
    """

    slope: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    intercept_ms: Finite
    num_networks: Annotated[int, Field(ge=3)]
    mape_percent: NonNegative
    half_width_percent: NonNegative
    measured_on: str


class LatencyTable(_Record):
    """The lookup table of a space: latency = base + sum over kept layers of their entries, in ms.

    Where a calibration is there, everything that is read is corrected: the slope scales
    base and entries, the intercept is part of the base. So sums stay sums.

    Attributes:
        space: name of the space whose every candidate operator the entries cover.
        base_ms: latency of all that is not searched: stems, head, classifier; uncorrected.
        base_iqr_ms: its interquartile range; None in imported tables.
        entries: uncorrected.
    """

    schema_version: int = SCHEMA_VERSION
    unit: Literal["ms"] = "ms"
    space: str
    base_ms: Finite
    base_iqr_ms: Finite | None = None
    provenance: Provenance
    calibration: Calibration | None = None
    entries: Annotated[tuple[LatencyEntry, ...], Field(strict=False)]

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if len(self._entry_of) != len(self.entries):
            raise ValueError("entries: a key appears twice; make the table again")
        if self.provenance.source == "imported":
            return self
        if self.base_ms < 0:
            raise ValueError(f"base_ms: {self.base_ms}; a latency cannot be negative; make the table again")
        for entry in self.entries:
            if min(entry.latency_ms) < 0:
                width = entry.widths[int(np.argmin(entry.latency_ms))]
                raise ValueError(
                    f"entries: ({entry.key}): {min(entry.latency_ms)} ms at width {width}; "
                    "a latency cannot be negative; make the table again"
                )
        return self

    @cached_property
    def _entry_of(self) -> dict[OpKey, LatencyEntry]:
        return {entry.key: entry for entry in self.entries}

    @property
    def base_latency_ms(self) -> float:
        """Latency of all that is not searched, in ms."""
        return self._slope * self.base_ms + (self.calibration.intercept_ms if self.calibration else 0.0)

    @property
    def _slope(self) -> float:
        return self.calibration.slope if self.calibration else 1.0

    def curve_ms(self, layer: LayerSpec, op: CandidateOp) -> NDArray[np.float64]:
        """Latency of an operator in a layer at each width, indexed by mid channels, in ms.

        Raises:
            UserError: the table has no such key, or not the whole width interval.
        """
        key = OpKey.of(layer, op)
        if key not in self._entry_of:
            raise UserError(f"latency table of '{self.space}': no entry for {key}; measure the table again")
        curve = self._slope * self._entry_of[key].curve_ms
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

    def interval_ms(self, architecture: Architecture) -> tuple[float, float] | None:
        """95 % prediction interval of a derived network's latency, in ms; None if not calibrated."""
        if self.calibration is None:
            return None
        latency_ms, share = self.latency_ms(architecture), self.calibration.half_width_percent / 100
        return latency_ms * (1 - share), latency_ms * (1 + share)

    def with_calibration(self, calibration: Calibration | None) -> Self:
        """The same table with that correction, or without any."""
        return self.model_copy(update={"calibration": calibration})

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
            UserError: the file is missing, truncated, of another schema or unit, inconsistent, or
                lacks an operator or a width of its space.
        """
        content: Any = read_json(path, "a latency table")
        version = content.get("schema_version", SCHEMA_VERSION) if isinstance(content, dict) else None
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise UserError(
                f"{path}: schema_version: {version}; this version reads {SCHEMA_VERSION} at most; "
                "update tfnas or measure the table again"
            )
        try:
            table = cls.model_validate(content)
            for layer in get_space(table.space).layers:
                for op in CANDIDATE_OPS:
                    table.curve_ms(layer, op)
        except ValidationError as error:
            raise UserError(f"{path}: {first_error(error)}") from None
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        return table


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
