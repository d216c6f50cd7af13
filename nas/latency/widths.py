"""Choice of the widths to measure: few, and each next one where interpolation is least certain.

Between the ends of an interval only odd widths are measured. Libraries are faster at multiples of 8,
and interpolated values must hold for the other seven eighths of the widths.

Source: adaptive sampling by leave-one-out errors, as in surrogate modelling (CV-Voronoi).
"""

import numpy as np
from numpy.typing import NDArray

from nas.latency.entry import interpolate

NUM_INITIAL_WIDTHS = 5
"""Number of initial widths of each key: about evenly spaced, both ends included."""


def initial_widths(low: int, high: int) -> list[int]:
    """The first widths to measure in a width interval, ascending."""
    inner = (_odd_between(int(width), high) for width in np.linspace(low, high, NUM_INITIAL_WIDTHS)[1:-1])
    return sorted({low, *inner, high})


def next_widths(widths: NDArray[np.int64], latency_ms: NDArray[np.float64]) -> list[tuple[float, int]]:
    """Midpoints of the gaps between measured widths, each with its uncertainty, largest first.

    If its neighbors predict a measured width badly, the gaps beside it are uncertain, and wide gaps more
    so. The uncertainty is the leave-one-out error, relative to the latency, times the gap's share of the
    whole interval.
    """
    errors = _leave_one_out_errors(widths, latency_ms)
    gaps = []
    for index in range(len(widths) - 1):
        low, high = int(widths[index]), int(widths[index + 1])
        if high - low > 1:
            share = (high - low) / (widths[-1] - widths[0])
            middle = _odd_between((low + high) // 2, high)
            gaps.append((float(max(errors[index], errors[index + 1]) * share), middle))
    return sorted(gaps, reverse=True)


def _odd_between(width: int, high: int) -> int:
    """The width itself, or the next one if that is odd and below `high`."""
    return width | 1 if width | 1 < high else width


def _leave_one_out_errors(widths: NDArray[np.int64], latency_ms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Relative error at each width of an interpolation that leaves this width out; 0 at both ends."""
    errors = np.zeros(len(widths))
    for index in range(1, len(widths) - 1):
        others = np.arange(len(widths)) != index
        predicted = interpolate(widths[others], latency_ms[others], widths[index : index + 1])
        errors[index] = abs(predicted[0] / latency_ms[index] - 1)
    return errors
