"""Sign flips: a test of a mean, and the interval that follows from it.

If the differences of a mean from its true value are symmetric, each is as likely as its negative, so
flipping signs gives the distribution of the mean. Flipping the values of a subset moves the mean to the
other side of `null` exactly if the mean of the subset lies on the other side, so the means of all subsets
give test and interval at once.

Few values that are skewed make this too sure of itself: therefore a second p-value, of Student's t corrected
for skewness, is computed as well, and the larger of the two counts. docs/claims.md shows by simulation how
often both err. Differences of a yes-or-no measure need no such correction, and are spoiled by it: if only -1,
0 and 1 are possible and the mean is 0, they are symmetric. Their interval follows from those of two shares.

Shapes: N values, M subsets.

Source: Hartigan, Using subsample values as typical values, 1969; Clopper and Pearson, The use of
confidence or fiducial limits illustrated in the case of the binomial, 1934; Hall, On the removal of skewness
by transformation, 1992; Phipson and Smyth, Permutation p-values should never be zero, 2010.
"""

from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Direction = Literal["less", "greater"]

CONFIDENCE = 0.95

MIN_VALUES = 7
"""Fewest values for a test or an interval: the smallest p-value of 7 is 1/128, of 6 it is 1/64."""

TEST = 2
"""Version of the test. Raise it with a change that claims which are registered already must not profit from.

1: differences of yes-or-no measures were corrected for skewness, too, so that ten misses of twelve were less
significant than nine.
"""

_MAX_EXACT = 16
_NUM_RANDOM = 2**16 - 1
_ROUNDING = 1e-12


def p_value(
    values_N: NDArray[np.float64],
    direction: Direction,
    null: float = 0.0,
    bounds: tuple[float, float] | None = None,
) -> float:
    """Returns the one-sided p-value of the mean being less (or greater) than `null`.

    All sign flips are tried for up to 16 values; more values are flipped at random 65,535 times, with
    fixed random numbers, and the unflipped values count as one more. If all values are equal, the
    probability to see no other counts as well, as in `interval`.

    Args:
        bounds: smallest and largest possible value; None if there is none.
    """
    sign = 1.0 if direction == "greater" else -1.0
    excess_N = sign * (values_N - null)
    mean_M = _subset_means(excess_N)
    rounding = _ROUNDING * max(_scale(values_N), abs(null))
    by_flips = (1 + np.count_nonzero(mean_M <= rounding)) / (1 + len(mean_M))
    if is_constant(values_N):
        worst = min(sign * (bound - null) for bound in bounds) if bounds else 0.0
        return max(float(by_flips), _p_of_equal(float(excess_N[0]), worst, len(values_N)))
    if not null and is_yes_or_no(values_N, bounds):
        return float(by_flips)
    return max(float(by_flips), _p_by_skewed_t(excess_N))


def interval(
    values_N: NDArray[np.float64], bounds: tuple[float, float] | None = None
) -> tuple[float, float] | None:
    """Returns the possible means that a two-sided test at 5 % does not reject.

    None with fewer than 7 values. If all are equal, other values may still exist but must be
    rare: the interval assumes that they are at the bounds. Without bounds it is None.

    Args:
        bounds: smallest and largest possible value; None if there is none.
    """
    if len(values_N) < MIN_VALUES:
        return None
    tail = (1 - CONFIDENCE) / 2
    if is_constant(values_N):
        if bounds is None:
            return None
        # The smallest share of equal values that still gives n of them with this probability.
        share = tail ** (1 / len(values_N))
        low, high = (share * float(values_N[0]) + (1 - share) * bound for bound in bounds)
        return low, high
    if is_yes_or_no(values_N, bounds):
        return _interval_of_shares(values_N)
    low, high = lower_bound(values_N, tail), -lower_bound(-values_N, tail)
    return (max(low, bounds[0]), min(high, bounds[1])) if bounds else (low, high)


def lower_bound(values_N: NDArray[np.float64], level: float) -> float:
    """Returns the mean up to which the test rejects at a level, for claims that the mean is greater.

    Minus infinity if so few values are never significant at this level.
    """
    mean_M = _subset_means(values_N)
    place = int(level * (1 + len(mean_M))) - 1
    if place < 0:
        return float("-inf")
    return min(float(np.partition(mean_M, place)[place]), _bound_by_skewed_t(values_N, level))


def is_yes_or_no(values_N: NDArray[np.float64], bounds: tuple[float, float] | None) -> bool:
    """Returns whether values are differences of a measure that is 0 or 1: all are -1, 0 or 1."""
    return bounds == (-1.0, 1.0) and bool(np.isin(values_N, (-1, 0, 1)).all())


def is_constant(values_N: NDArray[np.float64]) -> bool:
    """Returns whether all values are equal, up to rounding."""
    return bool(np.ptp(values_N) <= _ROUNDING * _scale(values_N))


def _subset_means(values_N: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of all subsets that are not empty, or of many random ones."""
    share_MN = _subsets(len(values_N))
    return np.asarray(share_MN @ values_N, np.float64)


@lru_cache(maxsize=4)
def _subsets(n: int) -> NDArray[np.float64]:
    """Rows that turn n values into the mean of a subset."""
    if n <= _MAX_EXACT:
        is_in_MN = (np.arange(1, 2**n)[:, None] >> np.arange(n)) & 1
    else:
        is_in_MN = np.random.default_rng(0).integers(0, 2, (_NUM_RANDOM, n))
        # An empty subset stands for no flip at all, which is counted separately.
        is_in_MN[~is_in_MN.any(axis=1), 0] = 1
    return np.asarray(is_in_MN / is_in_MN.sum(axis=1, keepdims=True), np.float64)


def _interval_of_shares(values_N: NDArray[np.float64]) -> tuple[float, float]:
    """The difference of the shares of 1 and -1: each share is in its exact interval but for half of 5 %."""
    from scipy import stats

    n = len(values_N)
    more, fewer = (
        stats.binomtest(int((values_N == sign).sum()), n).proportion_ci((1 + CONFIDENCE) / 2, "exact")
        for sign in (1, -1)
    )
    return float(more.low - fewer.high), float(more.high - fewer.low)


def _p_of_equal(excess: float, worst: float, n: int) -> float:
    """The largest probability to see n equal values if others, at their worst, make the mean 0."""
    if excess <= 0:
        return 1.0
    return float((worst / (worst - excess)) ** n) if worst < 0 else 0.0


def _p_by_skewed_t(excess_N: NDArray[np.float64]) -> float:
    """P-value of the mean being greater than 0, by Student's t on a mean corrected for skewness."""
    # Imported here, and below: scipy is slow to import, and reading claims asks for no statistics.
    from scipy import stats

    n = len(excess_N)
    g = _skewness(excess_N)
    w = excess_N.mean() / excess_N.std(ddof=1)
    t = np.sqrt(n) * (w + g * w**2 / 3 + g**2 * w**3 / 27 + g / (6 * n))
    return float(stats.t.sf(t, n - 1))


def _bound_by_skewed_t(values_N: NDArray[np.float64], level: float) -> float:
    """The mean for which that p-value is `level`."""
    from scipy import stats

    n = len(values_N)
    g = _skewness(values_N)
    corrected = stats.t.isf(level, n - 1) / np.sqrt(n) - g / (6 * n)
    w = corrected if abs(g) < 1e-6 else 3 / g * (np.cbrt(1 + g * corrected) - 1)
    return float(values_N.mean() - w * values_N.std(ddof=1))


def _skewness(values_N: NDArray[np.float64]) -> float:
    """Adjusted for n; `scipy.stats.skew` takes a millisecond, and plans of seeds need thousands."""
    n = len(values_N)
    central_N = values_N - values_N.mean()
    return float((central_N**3).mean() / (central_N**2).mean() ** 1.5 * np.sqrt(n * (n - 1)) / (n - 2))


def _scale(values_N: NDArray[np.float64]) -> float:
    return float(np.abs(values_N).max(initial=0.0))
