"""Comparisons of trials paired by seed.

A seed is the unit of replication. If cells differ in other factors too, the pairs of each seed are averaged
first: n is never larger than the number of seeds.

Shapes: N seeds.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from analysis.measures.summary import MIN_SEEDS, NUM_RESAMPLES, Summary, summarize
from analysis.reading.run import SEED, Run
from analysis.reading.values import Value

ALPHA = 0.05
_MAX_EXACT = 13

Direction = Literal["less", "greater"]


@dataclass(frozen=True)
class Pairs:
    """A measure of treated and baseline trials, by seed.

    Attributes:
        num_cells: number of pairs before the pairs of each seed were averaged.
        runs: the runs of all pairs.
    """

    seeds: tuple[Value, ...]
    treated_N: NDArray[np.float64]
    baseline_N: NDArray[np.float64]
    num_cells: int
    runs: tuple[Run, ...]

    @property
    def difference_N(self) -> NDArray[np.float64]:
        """Treated minus baseline."""
        return self.treated_N - self.baseline_N


@dataclass(frozen=True)
class Comparison:
    """Paired differences, tested in the direction that was claimed beforehand.

    Attributes:
        difference: mean and interval of treated minus baseline.
        effect_size: mean over standard deviation of the differences, with Hedges' correction for
            small n; None with fewer than 5 pairs or without spread.
        p_value: one-sided; None with fewer than 5 pairs.
        test: the name of the test, or why there is none.
    """

    difference: Summary
    effect_size: float | None
    p_value: float | None
    test: str


def pair_runs(
    runs: Iterable[Run],
    factors: Sequence[str],
    baseline: Sequence[Value],
    treated: Sequence[Value],
    others: Sequence[str],
) -> list[tuple[Run, Run]]:
    """Returns pairs of a treated and a baseline run that differ only in some factors.

    Args:
        factors: the factors that distinguish treated from baseline runs.
        baseline: their values in a baseline run.
        treated: their values in a treated run.
        others: the factors in which the runs of a pair must agree, besides the seed.
    """
    found: dict[tuple[Value, ...], dict[str, Run]] = {}
    for run in runs:
        side = {tuple(baseline): "baseline", tuple(treated): "treated"}.get(run.setting(factors))
        if side is not None:
            found.setdefault(run.setting((SEED, *others)), {})[side] = run
    return [(sides["treated"], sides["baseline"]) for sides in found.values() if len(sides) == 2]


def average_by_seed(pairs: Iterable[tuple[Run, Run]], measure: Callable[[Run], float]) -> Pairs:
    """Returns the measure of treated and baseline runs, averaged over the pairs of each seed.

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
    """Tests whether treated runs are lower (or higher) than baseline runs by more than a margin.

    Uses the exact paired permutation test up to 13 seeds, Wilcoxon's signed-rank test beyond.

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
    """Returns the p-values of several tests in their order, corrected for multiple testing.

    The probability that any of them falls below alpha by chance is at most alpha, however the tests
    depend on each other.

    Source: Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979.
    """
    p_N = np.asarray(p_values, np.float64)
    order_N = np.argsort(p_N, kind="stable")
    factor_N = np.arange(len(p_N), 0, -1)
    corrected_N = np.empty_like(p_N)
    # A corrected p is never smaller than that of a test with a smaller p.
    corrected_N[order_N] = np.minimum(np.maximum.accumulate(factor_N * p_N[order_N]), 1)
    return [float(p) for p in corrected_N]


def _one_sided_p(difference_N: NDArray[np.float64], direction: Direction) -> tuple[float, str]:
    if len(difference_N) > _MAX_EXACT:
        wilcoxon = stats.wilcoxon(difference_N, alternative=direction, zero_method="zsplit")
        return float(wilcoxon.pvalue), "Wilcoxon signed-rank test"
    # Swapping the two runs of a pair flips the sign of its difference.
    permutation = stats.permutation_test(
        (difference_N, np.zeros_like(difference_N)),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        n_resamples=NUM_RESAMPLES,
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
