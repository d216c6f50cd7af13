"""Means with intervals.

A seed is the unit of replication: it fixes the data split, the initial weights and the sampling.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

MIN_SEEDS = 5
"""Fewest seeds for an interval or a test: with 5 pairs the exact one-sided test can reach p = 1/32."""

CONFIDENCE = 0.95
NUM_RESAMPLES = 9999


@dataclass(frozen=True)
class Summary:
    """A mean with its bootstrap interval (95 %, BCa); the interval is None with fewer than 5 values."""

    n: int
    mean: float
    interval: tuple[float, float] | None

    def times(self, factor: float) -> "Summary":
        """Returns the same in another unit; the factor is positive."""
        low, high = self.interval or (0.0, 0.0)
        interval = None if self.interval is None else (low * factor, high * factor)
        return Summary(self.n, self.mean * factor, interval)


def summarize(values: ArrayLike) -> Summary:
    """Returns mean and interval of the values that are not NaN."""
    values_N = np.asarray(values, np.float64)
    values_N = values_N[~np.isnan(values_N)]
    if not len(values_N):
        return Summary(0, float("nan"), None)
    mean = float(values_N.mean())
    if len(values_N) < MIN_SEEDS:
        return Summary(len(values_N), mean, None)
    if np.ptp(values_N) == 0:
        return Summary(len(values_N), mean, (mean, mean))
    result = stats.bootstrap(
        (values_N,),
        np.mean,
        confidence_level=CONFIDENCE,
        n_resamples=NUM_RESAMPLES,
        rng=np.random.default_rng(0),
    )
    interval = (float(result.confidence_interval.low), float(result.confidence_interval.high))
    return Summary(len(values_N), mean, interval)
