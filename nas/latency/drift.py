"""Removal of a noisy machine's drift from interleaved measurements.

Shapes: S samples, I items, R runs, G groups. A sample is the time of an item (an operator at a width, or
a network) within a run (items timed directly after each other).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

_NUM_ITERATIONS = 5


class Timing(NamedTuple):
    """Median, interquartile range (both in ms) and number of an item's timings."""

    median_ms: float
    iqr_ms: float
    num_repeats: int

    @property
    def relative_error(self) -> float:
        """Standard error of the median relative to the median, assuming a normal distribution."""
        return 0.93 * self.iqr_ms / self.median_ms / float(np.sqrt(self.num_repeats))


def summarize_timings(times_ms_S: Floats, item_S: Indices, run_S: Indices) -> list[Timing]:
    """The timing of each item 0, 1, ... without drift; each item needs a sample."""
    times_ms_S = remove_drift(times_ms_S, item_S, run_S)
    low_I, median_I, high_I = (group_quantiles(times_ms_S, item_S, q) for q in (0.25, 0.5, 0.75))
    counts_I = np.bincount(item_S)
    return [
        Timing(float(median), float(high - low), int(count))
        for low, median, high, count in zip(low_I, median_I, high_I, counts_I, strict=True)
    ]


def remove_drift(times_S: Floats, item_S: Indices, run_S: Indices) -> Floats:
    """Divides each sample by the slowness of the machine during its run.

    Clocks, neighbors and caches slow everything that runs within some milliseconds alike, so
    time = (time of the item) x (slowness of the run) + noise. A median polish of the logarithms fits
    both factors; the median slowness of all runs is 1.

    Source: Tukey, Exploratory Data Analysis, 1977 (median polish).
    """
    log_S = np.log(times_S)
    slowness_R = np.zeros(run_S.max() + 1)
    for _ in range(_NUM_ITERATIONS):
        items_I = group_quantiles(log_S - slowness_R[run_S], item_S, 0.5)
        slowness_R = group_quantiles(log_S - items_I[item_S], run_S, 0.5)
        slowness_R -= np.nanmedian(slowness_R)
    return np.asarray(np.exp(log_S - slowness_R[run_S]))


def group_quantiles(values_S: Floats, group_S: Indices, quantile: float) -> Floats:
    """An interpolated quantile of each group 0, 1, ... up to the highest; NaN for an empty group."""
    sorted_S = values_S[np.lexsort((values_S, group_S))]
    counts_G = np.bincount(group_S)
    positions_G = np.cumsum(counts_G) - counts_G + quantile * (counts_G - 1)
    lower_G = np.clip(np.floor(positions_G).astype(np.int64), 0, len(sorted_S) - 1)
    upper_G = np.clip(np.ceil(positions_G).astype(np.int64), 0, len(sorted_S) - 1)
    share_G = positions_G - lower_G
    quantiles_G = (1 - share_G) * sorted_S[lower_G] + share_G * sorted_S[upper_G]
    return np.where(counts_G > 0, quantiles_G, np.nan)
