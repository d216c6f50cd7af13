"""The paper's claims put to the test: effect, interval, n, and a verdict, for each.

What decides was fixed before any result was seen, and is explained in docs/claims.md: one measure a
claim, one direction, one smallest effect that matters.

Source: TF-NAS, the three search freedoms and their remedies.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from analysis.measures.latency_error import TARGET, TOLERANCE_PERCENT, is_saturated
from analysis.measures.measure import (
    ABS_LATENCY_ERROR,
    FLUCTUATION,
    LATENCY,
    LOCKED_EARLY,
    REDUNDANT,
    SUPERNET_ACCURACY,
    TEST_ACCURACY,
    Measure,
    Numbers,
)
from analysis.reading.experiment import Experiment, Run
from analysis.reading.values import Value
from analysis.verdicts.statistics import (
    ALPHA,
    MIN_SEEDS,
    Comparison,
    Direction,
    Pairs,
    average_by_seed,
    compare,
    pair_runs,
)

Verdict = Literal["supported", "not supported", "undecided"]

SMALLEST_EFFECTS: dict[str, float] = {
    LOCKED_EARLY.name: 0.10,
    FLUCTUATION.name: 0.10,
    REDUNDANT.name: 0.05,
    ABS_LATENCY_ERROR.name: TOLERANCE_PERCENT,
}
"""Smallest effects that matter, in the unit of their measure."""

ACCURACY_MARGIN = 0.005
"""An accuracy lower by no more than this is still 'at least as accurate'."""

EQUAL_LATENCY = 1.05
"""Greatest ratio of the method's latency to the baseline's at which latencies count as equal."""

MIN_SHARE_MET = 0.95
"""Least share of the elastic trials that must meet their target."""

NONE_OF_A_STUDY = (
    "A study compares no settings: claims are tested by grids, such as the one in its best.yaml."
)

_OBJECTIVE = ("objective", "latency_weight", "objective_scale", "objective_exponent")
_METHOD: dict[str, Value] = {"sampling": "bi", "depth": "sink", "elasticity": True}
_BASELINE: dict[str, Value] = {"sampling": "single", "depth": "skip", "elasticity": False}


@dataclass(frozen=True)
class Claim:
    """A claim and what the experiment says of it.

    Attributes:
        letter: (a) to (e), as in docs/claims.md.
        measure: what was compared, and in which unit.
        comparison: None where no two trials could be compared.
        reason: why this verdict, in a sentence.
        num_seeds: pairs that the test had; each is the mean over a seed's cells.
        num_cells: pairs of cells behind them.
    """

    letter: str
    statement: str
    measure: str
    verdict: Verdict
    reason: str
    comparison: Comparison | None
    num_seeds: int
    num_cells: int
    runs: tuple[Run, ...]

    @property
    def effect(self) -> str:
        """Mean difference, interval, effect size and test, in a line."""
        if self.comparison is None or not self.num_seeds:
            return "–"
        difference = self.comparison.difference
        parts = [f"{difference.mean:+.4g}"]
        if difference.interval is not None:
            parts.append(f"95 % interval [{difference.interval[0]:.4g}, {difference.interval[1]:.4g}]")
        if self.comparison.effect_size is not None:
            parts.append(f"Hedges' g {self.comparison.effect_size:.2f}")
        if self.comparison.p_value is not None:
            parts.append(f"p = {self.comparison.p_value:.3g} ({self.comparison.test}, one-sided)")
        else:
            parts.append(self.comparison.test)
        return ", ".join(parts)


def judge_claims(experiment: Experiment, numbers: Numbers) -> list[Claim]:
    """All five claims, each with its verdict; none of a study (`NONE_OF_A_STUDY`)."""
    if experiment.is_study:
        return []
    return [
        _lessens(
            experiment, numbers, "a", "Bi-sampling lessens operator collapse.", "sampling", LOCKED_EARLY
        ),
        _lessens(
            experiment, numbers, "b", "Sink-connecting lessens depth fluctuation.", "depth", FLUCTUATION
        ),
        _removes_redundancy(experiment, numbers),
        _meets_targets(experiment, numbers),
        _is_as_accurate(experiment, numbers),
    ]


def judge(comparison: Comparison, direction: Direction, smallest: float) -> tuple[Verdict, str]:
    """The verdict of a paired test in the claimed direction.

    Supported: significant. Not supported: the interval excludes an effect as large as the smallest
    that matters. Undecided: neither, or too few seeds.
    """
    if comparison.p_value is None or comparison.difference.interval is None:
        return "undecided", comparison.test
    if comparison.p_value <= ALPHA:
        return "supported", f"{comparison.test}: p = {comparison.p_value:.3g}"
    low, high = comparison.difference.interval
    best_effect = -low if direction == "less" else high
    if best_effect < smallest:
        return "not supported", f"the data exclude an effect of {smallest:g} or more in the claimed direction"
    return "undecided", f"p = {comparison.p_value:.3g}, and an effect of {smallest:g} is not excluded"


def _pairs(experiment: Experiment, numbers: Numbers, factors: Sequence[str], measure: Measure) -> Pairs:
    pairs = pair_runs(
        experiment.runs,
        factors,
        [_BASELINE[factor] for factor in factors],
        [_METHOD[factor] for factor in factors],
        experiment.other_factors(*factors),
    )
    return average_by_seed(pairs, lambda run: numbers[run.run_id][measure.name])


def _lessens(
    experiment: Experiment, numbers: Numbers, letter: str, statement: str, factor: str, measure: Measure
) -> Claim:
    pairs = _pairs(experiment, numbers, [factor], measure)
    comparison = compare(pairs, "less")
    verdict, reason = judge(comparison, "less", SMALLEST_EFFECTS[measure.name])
    title = f"{measure.title}: {_METHOD[factor]} less {_BASELINE[factor]}"
    return _claim(letter, statement, title, verdict, reason, comparison, pairs)


def _removes_redundancy(experiment: Experiment, numbers: Numbers) -> Claim:
    pairs = _pairs(experiment, numbers, ["depth"], REDUNDANT)
    comparison = compare(pairs, "less")
    verdict, reason = judge(comparison, "less", SMALLEST_EFFECTS[REDUNDANT.name])
    if len(pairs.seeds) and pairs.treated_N.max() > 0:
        verdict, reason = (
            "not supported",
            f"sink spaces were redundant, too ({pairs.treated_N.mean():.2g})",
        )
    return _claim(
        "c", "Sink-connecting removes redundancy.", f"{REDUNDANT.title}: sink less skip", verdict, reason,
        comparison, pairs,
    )  # fmt: skip


def _meets_targets(experiment: Experiment, numbers: Numbers) -> Claim:
    statement = (
        "Elasticity-scaling meets the latency target whatever the objective and its weight, and without "
        "it the target is missed."
    )
    pairs = _pairs(experiment, numbers, ["elasticity"], ABS_LATENCY_ERROR)
    comparison = compare(pairs, "less")
    title = f"{ABS_LATENCY_ERROR.title}, in percent: with less without elasticity-scaling"
    elastic = [run for run in experiment.runs if run.config.get("elasticity") is True]
    missed = [run for run in elastic if not numbers[run.run_id][ABS_LATENCY_ERROR.name] <= TOLERANCE_PERCENT]
    settings = {run.setting(_OBJECTIVE) for run in elastic}
    told = (
        f"{len(elastic) - len(missed)} of {len(elastic)} elastic trials within {TOLERANCE_PERCENT:g} % of "
        f"their target ({sum(map(is_saturated, missed))} of the others have every width at its bound), "
        f"objectives and weights: {len(settings)}"
    )
    verdict, reason = judge(comparison, "less", SMALLEST_EFFECTS[ABS_LATENCY_ERROR.name])
    if len(missed) > (1 - MIN_SHARE_MET) * len(elastic):
        verdict = "not supported" if len({run.seed for run in elastic}) >= MIN_SEEDS else "undecided"
    elif verdict == "supported" and len(settings) < 2:
        verdict, reason = "undecided", f"{reason}; but one objective and weight only"
    elif verdict == "supported" and np.mean(pairs.baseline_N) <= TOLERANCE_PERCENT:
        verdict, reason = "not supported", "without elasticity-scaling the target was met, too"
    return _claim("d", statement, title, verdict, f"{told}; {reason}", comparison, pairs)


def _is_as_accurate(experiment: Experiment, numbers: Numbers) -> Claim:
    statement = (
        "The whole method is at least as accurate, at equal latency, as single-path sampling in the skip "
        "space without elasticity-scaling."
    )
    is_trained = any(np.isfinite(numbers[run.run_id][TEST_ACCURACY.name]) for run in experiment.runs)
    measure = TEST_ACCURACY if is_trained else SUPERNET_ACCURACY
    matches, num_unmatched = _match_latencies(experiment, numbers)
    pairs = average_by_seed(matches, lambda run: numbers[run.run_id][measure.name])
    comparison = compare(pairs, "greater", margin=-ACCURACY_MARGIN)
    verdict, reason = judge(comparison, "greater", -ACCURACY_MARGIN)
    if not is_trained:
        verdict, reason = "undecided", f"no derived network was trained; on the supernet's weights: {reason}"
    if num_unmatched:
        reason += f"; {num_unmatched} baseline trials have no trial of the method that is as fast"
    title = f"{measure.title}: whole method less baseline (margin {ACCURACY_MARGIN:g})"
    return _claim("e", statement, title, verdict, reason, comparison, pairs)


def _match_latencies(experiment: Experiment, numbers: Numbers) -> tuple[list[tuple[Run, Run]], int]:
    """For each baseline trial the slowest trial of the method that is as fast; and how many have none.

    Both have the same seed and the same other factors, but maybe other targets: the baseline
    misses its own.
    """
    others = ("seed", *experiment.other_factors(*_METHOD, TARGET))

    def is_faster(treated: Run, baseline: Run) -> bool:
        limit_ms = EQUAL_LATENCY * numbers[baseline.run_id][LATENCY.name]
        return numbers[treated.run_id][LATENCY.name] <= limit_ms

    method = [run for run in experiment.runs if run.setting(_METHOD) == tuple(_METHOD.values())]
    baselines = [run for run in experiment.runs if run.setting(_METHOD) == tuple(_BASELINE.values())]
    matches = []
    for baseline in baselines:
        as_fast = [
            run
            for run in method
            if run.setting(others) == baseline.setting(others) and is_faster(run, baseline)
        ]
        if as_fast:
            matches.append((max(as_fast, key=lambda run: numbers[run.run_id][LATENCY.name]), baseline))
    return matches, len(baselines) - len(matches)


def _claim(
    letter: str,
    statement: str,
    measure: str,
    verdict: Verdict,
    reason: str,
    comparison: Comparison,
    pairs: Pairs,
) -> Claim:
    return Claim(
        letter=letter,
        statement=statement,
        measure=measure,
        verdict=verdict,
        reason=reason,
        comparison=comparison,
        num_seeds=len(pairs.seeds),
        num_cells=pairs.num_cells,
        runs=pairs.runs,
    )
