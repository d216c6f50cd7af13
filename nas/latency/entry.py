"""Entries of a lookup table: the latency of an operator as a function of its width.

Source: TF-NAS, latency model; the key's fields are those of the published tables.
"""

from collections.abc import Mapping
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from nas.space.macro_space import LayerSpec, Space
from nas.space.operators import Activation, CandidateOp

Milliseconds = Annotated[float, Field(ge=-1e9, le=1e9)]
"""Latency of an operator or a network. Negative only in imported tables. Sums stay finite."""

Width = Annotated[int, Field(ge=1, le=100_000)]
"""Mid channels. A curve has a value for each width, so an unbounded width would exhaust the memory."""


class Record(BaseModel):
    """A frozen record that refuses unknown fields and wrong types."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copies the record without cached values, which may not apply to the updated copy."""
        copy = super().model_copy(update=update, deep=deep)
        for name in copy.__dict__.keys() - type(self).model_fields.keys():
            del copy.__dict__[name]
        return copy


class OpKey(Record):
    """Everything an operator's latency depends on, except its mid channels.

    `resolution` is that of the input, in pixels. `se_channels` is 0 without squeeze-and-excitation.
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


class LatencyEntry(Record):
    """Latencies of one key at the measured (or imported) widths, ascending.

    Between these widths the latency is interpolated, monotonically between neighbors. Beyond them there
    is none.

    Attributes:
        latency_ms: values that the model uses; in measured tables they never fall as the width grows.
        median_ms: median of the repeats at each width, as measured; None in imported tables.
        iqr_ms: interquartile range of the repeats.
        num_repeats: number of repeats.
    """

    key: OpKey
    widths: Annotated[tuple[Width, ...], Field(strict=False, min_length=1)]
    latency_ms: Annotated[tuple[Milliseconds, ...], Field(strict=False)]
    median_ms: Annotated[tuple[Milliseconds, ...] | None, Field(strict=False)] = None
    iqr_ms: Annotated[tuple[Milliseconds, ...] | None, Field(strict=False)] = None
    num_repeats: Annotated[tuple[int, ...] | None, Field(strict=False)] = None

    @model_validator(mode="after")
    def _is_a_curve(self) -> Self:
        for name in ("latency_ms", "median_ms", "iqr_ms", "num_repeats"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.widths):
                raise ValueError(
                    f"({self.key}): {len(self.widths)} widths, but {len(values)} {name}; rebuild the table"
                )
        if any(b <= a for a, b in pairwise(self.widths)):
            raise ValueError(f"({self.key}): widths must ascend; rebuild the table")
        return self

    @cached_property
    def curve_ms(self) -> NDArray[np.float64]:
        """Latency at each integer width, indexed by width; NaN below the lowest."""
        curve = np.full(self.widths[-1] + 1, np.nan)
        inside = np.arange(self.widths[0], self.widths[-1] + 1)
        curve[inside] = interpolate(np.array(self.widths), np.array(self.latency_ms), inside)
        return curve


def interpolate(
    widths: NDArray[np.int64], latency_ms: NDArray[np.float64], at: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Latency between measured widths: monotone between neighbors, exact at the measured widths.

    Args:
        widths: ascending.
        at: widths to read, within the measured interval.
    """
    assert widths[0] <= at.min()
    assert at.max() <= widths[-1]
    if len(widths) == 1:
        return np.full(len(at), latency_ms[0])
    if len(widths) == widths[-1] - widths[0] + 1:
        return np.asarray(latency_ms[at - widths[0]])
    # Imported here: scipy is slow to import, and who reads no curve needs none of it.
    from scipy.interpolate import PchipInterpolator

    return np.asarray(PchipInterpolator(widths, latency_ms)(at))


def space_keys(space: Space) -> dict[OpKey, tuple[int, int]]:
    """The distinct keys of a space, each with the lowest and the highest width that it must cover."""
    intervals: dict[OpKey, tuple[int, int]] = {}
    for layer in space.layers:
        for op in space.ops:
            key, (low, high) = OpKey.of(layer, op), op.width_interval(layer.in_channels)
            known_low, known_high = intervals.get(key, (low, high))
            intervals[key] = (min(low, known_low), max(high, known_high))
    return intervals
