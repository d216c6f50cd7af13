"""Means over seeds, with intervals.

A seed is the unit of replication: it fixes the data split, the initial weights and the sampling.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from analysis.measures.sign_flips import interval, is_constant


@dataclass(frozen=True)
class Summary:
    """A mean with its 95 % interval; the interval is None with fewer than 7 values or without spread."""

    n: int
    mean: float
    interval: tuple[float, float] | None

    def times(self, factor: float) -> "Summary":
        """Returns the same in another unit; the factor is positive."""
        low, high = self.interval or (0.0, 0.0)
        interval = None if self.interval is None else (low * factor, high * factor)
        return Summary(self.n, self.mean * factor, interval)


def summarize(values: ArrayLike, bounds: tuple[float, float] | None = None) -> Summary:
    """Returns mean and interval of the values that are not NaN.

    Args:
        bounds: smallest and largest possible value; None if there is none.
    """
    values_N = np.asarray(values, np.float64)
    values_N = values_N[~np.isnan(values_N)]
    if not len(values_N):
        return Summary(0, float("nan"), None)
    return Summary(
        len(values_N), float(values_N.mean()), None if is_constant(values_N) else interval(values_N, bounds)
    )
