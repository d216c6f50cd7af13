"""Lookup tables: the latency of every candidate operator at every width.

Source: TF-NAS, latency model.
"""

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from nas.foundation.errors import UserError
from nas.foundation.validation import first_error, read_json
from nas.latency.entry import LatencyEntry, Milliseconds, OpKey, Record, space_keys
from nas.latency.quiet import counts_as_busy
from nas.space.architecture import Architecture
from nas.space.macro_space import LayerSpec, Space, get_space
from nas.space.operators import CandidateOp

SCHEMA_VERSION = 1
_CHECKSUM = "checksum"
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Provenance(Record):
    """The origin of a table: enough to know what its numbers mean and when they hold.

    Attributes:
        device_type: `cpu` or `cuda`.
        num_classes: outputs of the classifier, which is part of the base.
        conditions: how the networks were run.
        measured_on: date and time, UTC.
        duration_s: duration of the measurement.
        num_repeats: number of timings per point, as a median over the points.
        spread_percent: interquartile range relative to the median, as a median over the points.
        num_busy_cpus: CPUs that other processes used during the measurement, on average.
        num_cpus: CPUs that the measurement could have used; None in older tables.
        note: anything else; for an imported table, the file it was read from.
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
    duration_s: NonNegative | None = None
    num_repeats: int | None = None
    spread_percent: NonNegative | None = None
    num_busy_cpus: NonNegative | None = None
    # Newer than tables that results are known by, whose fingerprints must not change.
    num_cpus: Annotated[int | None, Field(ge=1, exclude_if=lambda value: value is None)] = None
    note: str | None = None

    @property
    def doubt(self) -> str | None:
        """Why the latencies may be wrong: the machine was busy; None if it was quiet."""
        if not counts_as_busy(self.num_busy_cpus or 0.0, self.num_cpus or 1):
            return None
        return f"measured while other processes used {self.num_busy_cpus:.1f} CPUs, so latencies may be wrong"


class Calibration(Record):
    """An affine correction, fitted to whole networks: latency = slope * sum of entries + intercept.

    Attributes:
        num_networks: number of random networks in the fit.
        mape_percent: mean absolute error of the corrected latency on networks left out of the fit.
        half_width_percent: half width of the 95 % prediction interval of a network, relative to its latency.
        measured_on: date and time, UTC.
    """

    slope: Annotated[float, Field(gt=0, le=1000)]
    intercept_ms: Milliseconds
    num_networks: Annotated[int, Field(ge=3)]
    mape_percent: NonNegative
    half_width_percent: NonNegative
    measured_on: str


class LatencyTable(Record):
    """The lookup table of a space: latency = base + sum over kept layers of their entries, in ms.

    With a calibration, everything that is read is corrected: the slope scales base and entries, and the
    intercept is part of the base. Sums therefore remain sums.

    Attributes:
        space: name of the space; the entries cover all of its candidate operators.
        base_ms: uncorrected latency of everything that is not searched: stems, head, classifier.
        base_iqr_ms: interquartile range of the base; None in imported tables.
        entries: uncorrected entries.
    """

    schema_version: Annotated[int, Field(ge=1, le=SCHEMA_VERSION)] = SCHEMA_VERSION
    unit: Literal["ms"] = "ms"
    space: str
    base_ms: Milliseconds
    base_iqr_ms: Milliseconds | None = None
    provenance: Provenance
    calibration: Calibration | None = None
    entries: Annotated[tuple[LatencyEntry, ...], Field(strict=False)]

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if len(self._entry_of) != len(self.entries):
            raise ValueError("entries: a key appears twice; rebuild the table")
        if self.provenance.source == "imported":
            return self
        if self.base_ms < 0:
            raise ValueError(f"base_ms: {self.base_ms}; a latency cannot be negative; rebuild the table")
        for entry in self.entries:
            if min(entry.latency_ms) < 0:
                width = entry.widths[int(np.argmin(entry.latency_ms))]
                raise ValueError(
                    f"entries: ({entry.key}): {min(entry.latency_ms)} ms at width {width}; "
                    "a latency cannot be negative; rebuild the table"
                )
        return self

    @cached_property
    def _entry_of(self) -> dict[OpKey, LatencyEntry]:
        return {entry.key: entry for entry in self.entries}

    @property
    def base_latency_ms(self) -> float:
        """Latency of everything that is not searched, in ms."""
        return self._slope * self.base_ms + (self.calibration.intercept_ms if self.calibration else 0.0)

    @property
    def _slope(self) -> float:
        return self.calibration.slope if self.calibration else 1.0

    def curve_ms(self, layer: LayerSpec, op: CandidateOp) -> NDArray[np.float64]:
        """Latency of an operator in a layer at each width, in ms, indexed by mid channels.

        Raises:
            UserError: the table lacks the key, or part of its width interval.
        """
        return self._slope * self._entry_for(layer, op, f"latency table of '{self.space}'").curve_ms

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
        """95 % prediction interval of a derived network's latency, in ms; None without a calibration."""
        if self.calibration is None:
            return None
        latency_ms, share = self.latency_ms(architecture), self.calibration.half_width_percent / 100
        return latency_ms * (1 - share), latency_ms * (1 + share)

    def with_calibration(self, calibration: Calibration | None) -> Self:
        """The same table with this calibration, or without any."""
        return self.model_copy(update={"calibration": calibration})

    def check_covers(self, space: Space, where: str) -> None:
        """Checks that the table has every operator of the space at every width of its interval.

        Args:
            where: what the error names, for instance the path of the table.

        Raises:
            UserError: a key or a width is missing.
        """
        for layer in space.layers:
            for op in space.ops:
                self._entry_for(layer, op, where)

    def _entry_for(self, layer: LayerSpec, op: CandidateOp, where: str) -> LatencyEntry:
        key, (low, high) = OpKey.of(layer, op), op.width_interval(layer.in_channels)
        entry = self._entry_of.get(key)
        if entry is None:
            raise UserError(f"{where}: no entry for {key}; measure the table again")
        if low < entry.widths[0] or entry.widths[-1] < high:
            raise UserError(f"{where}: {key} lacks widths {low} to {high}; measure the table again")
        return entry

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the whole content of the table, in hexadecimal."""
        return _checksum(self.model_dump(mode="json"))

    def save(self, path: str | Path) -> None:
        """Writes the table as JSON, with a checksum of its content.

        Raises:
            UserError: the file cannot be written.
        """
        content = self.model_dump(mode="json", exclude_none=True)
        text = json.dumps({_CHECKSUM: _checksum(content), **content}, indent=1)
        try:
            Path(path).write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(
                f"{path}: cannot write the table: {error.strerror}; choose another path"
            ) from None

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads a table.

        Raises:
            UserError: the file is missing, truncated, edited by hand (unless its checksum was removed), of
                another schema or unit, inconsistent, or lacks an operator or a width of its space.
        """
        content: Any = read_json(path, "a latency table")
        version = content.get("schema_version", SCHEMA_VERSION) if isinstance(content, dict) else None
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise UserError(
                f"{path}: schema_version: {version}; this version reads {SCHEMA_VERSION} at most; "
                "update tfnas or measure the table again"
            )
        _check_sum(content, str(path))
        try:
            table = cls.model_validate(content)
        except ValidationError as error:
            raise UserError(f"{path}: {first_error(error)}") from None
        table.check_covers(_space_of(table, str(path)), str(path))
        return table


def _check_sum(content: Any, where: str) -> None:
    """Removes the checksum from a table's JSON, and compares it with the content.

    Raises:
        UserError: the checksum does not match the content.
    """
    checksum = content.pop(_CHECKSUM, None) if isinstance(content, dict) else None
    if checksum is not None and checksum != _checksum(content):
        raise UserError(
            f"{where}: {_CHECKSUM}: the table was damaged or edited since it was written; rebuild it "
            f"or, if you edited it on purpose, remove its {_CHECKSUM}"
        )


def _checksum(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _space_of(table: LatencyTable, where: str) -> Space:
    try:
        return get_space(table.space)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def reachable_interval_ms(
    table: LatencyTable,
    *,
    initial_widths: bool = False,
    full_depth: bool = False,
) -> tuple[float, float]:
    """Lowest and highest latency over the networks of the table's space, in ms.

    Args:
        initial_widths: include only networks whose operators have their initial widths.
        full_depth: include only networks that keep every layer.
    """
    space = get_space(table.space)
    low_ms = high_ms = table.base_latency_ms
    for stage, spec in enumerate(space.stages):
        lows_ms, highs_ms = [0.0], [0.0]
        for layer in space.stage_layers(stage):
            curves = [_readable_ms(table, layer, op, initial_widths) for op in space.ops]
            lows_ms.append(lows_ms[-1] + min(float(curve.min()) for curve in curves))
            highs_ms.append(highs_ms[-1] + max(float(curve.max()) for curve in curves))
        first_depth = spec.num_layers if full_depth else space.min_depth(stage)
        low_ms += min(lows_ms[first_depth:])
        high_ms += max(highs_ms[first_depth:])
    return low_ms, high_ms


def _readable_ms(
    table: LatencyTable, layer: LayerSpec, op: CandidateOp, initial_width: bool
) -> NDArray[np.float64]:
    low, high = op.width_interval(layer.in_channels)
    if initial_width:
        low = high = op.initial_width(layer.in_channels)
    return table.curve_ms(layer, op)[low : high + 1]


__all__ = [
    "SCHEMA_VERSION",
    "Calibration",
    "LatencyEntry",
    "LatencyTable",
    "OpKey",
    "Provenance",
    "reachable_interval_ms",
    "space_keys",
]
