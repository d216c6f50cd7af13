"""Means with intervals, and comparisons of trials paired by seed.

A seed is the unit of replication: it fixes data split, initial weights and sampling. Where cells differ
in other factors, too, a seed's pairs are averaged first, so that n is never larger than the number of
seeds.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from analysis.reading.experiment import SEED, Run
from analysis.reading.values import Value

MIN_SEEDS = 5
"""Fewest seeds for an interval or a test: with 5 pairs the exact one-sided test can reach p = 1/32."""

CONFIDENCE = 0.95
ALPHA = 0.05
_MAX_EXACT = 13
_NUM_RESAMPLES = 9999

Direction = Literal["less", "greater"]


@dataclass(frozen=True)
class Summary:
    """A mean with its bootstrap interval (95 %, BCa); the interval is None with fewer than 5 values."""

    n: int
    mean: float
    interval: tuple[float, float] | None

    def times(self, factor: float) -> "Summary":
        """The same in another unit; the factor is positive."""
        low, high = self.interval or (0.0, 0.0)
        interval = None if self.interval is None else (low * factor, high * factor)
        return Summary(self.n, self.mean * factor, interval)

    def show(self, digits: int = 3) -> str:
        """`0.123 [0.110, 0.140], n = 5`."""
        if not self.n:
            return "no value"
        interval = ""
        if self.interval is not None:
            interval = f" [{self.interval[0]:.{digits}f}, {self.interval[1]:.{digits}f}]"
        return f"{self.mean:.{digits}f}{interval}, n = {self.n}"


@dataclass(frozen=True)
class Pairs:
    """A measure of the treated and the baseline trials, by seed.

    Attributes:
        num_cells: pairs of cells before each seed's were averaged.
        runs: those that were paired.
    """

    seeds: tuple[Value, ...]
    treated_N: NDArray[np.float64]
    baseline_N: NDArray[np.float64]
    num_cells: int
    runs: tuple[Run, ...]

    @property
    def difference_N(self) -> NDArray[np.float64]:
        """Treated less baseline."""
        return self.treated_N - self.baseline_N


@dataclass(frozen=True)
class Comparison:
    """Paired differences, tested in the direction that was claimed beforehand.

    Attributes:
        difference: mean and interval of treated less baseline.
        effect_size: mean over standard deviation of the differences, with Hedges' correction for
            small n; None with fewer than 5 pairs or without spread.
        p_value: one-sided; None with fewer than 5 pairs.
        test: its name, or why there is none.
    """

    difference: Summary
    effect_size: float | None
    p_value: float | None
    test: str


def summarize(values: ArrayLike) -> Summary:
    """Mean and interval of the values that are not NaN."""
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
        n_resamples=_NUM_RESAMPLES,
        rng=np.random.default_rng(0),
    )
    interval = (float(result.confidence_interval.low), float(result.confidence_interval.high))
    return Summary(len(values_N), mean, interval)


def pair_runs(
    runs: Iterable[Run],
    factors: Sequence[str],
    baseline: Sequence[Value],
    treated: Sequence[Value],
    others: Sequence[str],
) -> list[tuple[Run, Run]]:
    """The treated and the baseline runs that differ in `factors` only, in pairs.

    Args:
        factors: those that tell treated and baseline runs apart.
        baseline: their values in a baseline run.
        treated: their values in a treated run.
        others: the factors in which the runs of a pair must agree, beside the seed.
    """
    found: dict[tuple[Value, ...], dict[str, Run]] = {}
    for run in runs:
        side = {tuple(baseline): "baseline", tuple(treated): "treated"}.get(run.setting(factors))
        if side is not None:
            found.setdefault(run.setting((SEED, *others)), {})[side] = run
    return [(sides["treated"], sides["baseline"]) for sides in found.values() if len(sides) == 2]


def average_by_seed(pairs: Iterable[tuple[Run, Run]], measure: Callable[[Run], float]) -> Pairs:
    """The measure of treated and baseline runs, the mean over each seed's pairs.

    Pairs that lack the measure are left out.
    """
    by_seed: dict[Value, list[tuple[float, float]]] = {}
    used: dict[str, Run] = {}
    for treated, baseline in pairs:
        values = (measure(treated), measure(baseline))
        if not np.isnan(values).any():
            by_seed.setdefault(treated.seed, []).append(values)
            used |= {baseline.run_id: baseline, treated.run_id: treated}
    means = np.array([np.mean(values, axis=0) for values in by_seed.values()]).reshape(-1, 2)
    return Pairs(
        seeds=tuple(by_seed),
        treated_N=means[:, 0],
        baseline_N=means[:, 1],
        num_cells=sum(map(len, by_seed.values())),
        runs=tuple(used.values()),
    )


def compare(pairs: Pairs, direction: Direction, margin: float = 0.0) -> Comparison:
    """Tests whether the treated are less (or greater) than the baseline by more than a margin.

    The exact permutation test of the pairs up to 13 seeds, Wilcoxon's signed-rank test beyond.

    Args:
        margin: a difference of this size does not count; negative for a non-inferiority test.
    """
    difference_N = pairs.difference_N
    n = len(difference_N)
    difference = summarize(difference_N)
    if not n:
        return Comparison(difference, None, None, "no trials to compare")
    if n < MIN_SEEDS:
        return Comparison(difference, None, None, f"no test: n = {n}, at least {MIN_SEEDS} seeds needed")
    shifted_N = difference_N - margin
    p_value, test = _one_sided_p(shifted_N, direction)
    return Comparison(difference, _effect_size(difference_N), p_value, test)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of several tests, each corrected for all of them, in the order given.

    Whatever the tests have to do with each other, one falls below alpha by mistake with a probability of
    at most alpha.

    Source: Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979.
    """
    p_N = np.asarray(p_values, np.float64)
    order_N = np.argsort(p_N, kind="stable")
    factor_N = np.arange(len(p_N), 0, -1)
    corrected_N = np.empty_like(p_N)
    # No test may be easier to pass than one with a smaller p.
    corrected_N[order_N] = np.minimum(np.maximum.accumulate(factor_N * p_N[order_N]), 1)
    return [float(p) for p in corrected_N]


def _one_sided_p(difference_N: NDArray[np.float64], direction: Direction) -> tuple[float, str]:
    if len(difference_N) > _MAX_EXACT:
        wilcoxon = stats.wilcoxon(difference_N, alternative=direction, zero_method="zsplit")
        return float(wilcoxon.pvalue), "Wilcoxon signed-rank test"
    # Swapping treated and baseline of a pair flips the sign of its difference.
    permutation = stats.permutation_test(
        (difference_N, np.zeros_like(difference_N)),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        n_resamples=_NUM_RESAMPLES,
        alternative=direction,
        vectorized=True,
    )
    return float(permutation.pvalue), "exact paired permutation test"


def _effect_size(difference_N: NDArray[np.float64]) -> float | None:
    spread = difference_N.std(ddof=1)
    if spread <= 1e-9 * np.abs(difference_N).max():
        return None
    hedges = 1 - 3 / (4 * (len(difference_N) - 1) - 1)
    return float(hedges * difference_N.mean() / spread)
