"""What a claim is, and how a paired test decides it."""

from dataclasses import dataclass
from typing import Literal

from analysis.measures.measure import Measure, Numbers
from analysis.reading.experiment import Experiment
from analysis.reading.run import Run
from analysis.reading.values import Value, show_value
from analysis.verdicts.statistics import (
    ALPHA,
    Comparison,
    Direction,
    Pairs,
    average_by_seed,
    compare,
    pair_runs,
)

Verdict = Literal["supported", "not supported", "undecided"]


@dataclass(frozen=True)
class Claim:
    """A claim, and what the runs of an experiment show about it.

    Attributes:
        measure: what was compared, with its unit.
        reason: why this verdict, in a clause.
        num_seeds: number of paired differences in the test, one per seed.
        num_cells: number of pairs of trials behind them.
        letter: the name that it is registered under, set by `judge_claims`.
    """

    statement: str
    measure: str
    verdict: Verdict
    reason: str
    comparison: Comparison
    num_seeds: int
    num_cells: int
    runs: tuple[Run, ...]
    letter: str = ""

    @classmethod
    def of(
        cls,
        statement: str,
        measure: str,
        verdict: Verdict,
        reason: str,
        comparison: Comparison,
        pairs: Pairs,
    ) -> "Claim":
        """Returns the claim with the numbers of its pairs."""
        num_seeds = len(pairs.seeds)
        return cls(statement, measure, verdict, reason, comparison, num_seeds, pairs.num_cells, pairs.runs)

    @property
    def effect(self) -> str:
        """Mean difference, interval, effect size and test, in a line."""
        if not self.num_seeds:
            return "–"
        comparison = self.comparison
        parts = [f"{comparison.difference.mean:+.4g}"]
        if comparison.difference.interval is not None:
            low, high = comparison.difference.interval
            parts.append(f"95 % interval [{low:.4g}, {high:.4g}]")
        if comparison.effect_size is not None:
            parts.append(f"Hedges' g {comparison.effect_size:.2f}")
        if comparison.p_value is not None:
            parts.append(f"p = {comparison.p_value:.3g} ({comparison.test}, one-sided)")
        else:
            parts.append(comparison.test)
        return ", ".join(parts)


@dataclass(frozen=True)
class PairedClaim:
    """The claim that one value of a factor lowers (or raises) a measure, compared with another value.

    Trials are paired if they agree in the seed and all other factors. Calling the record judges it.

    Attributes:
        treated: the value of the factor that is claimed to be better.
        baseline: the value it is compared with.
        smallest_effect: the smallest difference that matters, in the unit of the measure, positive.
    """

    statement: str
    measure: Measure
    factor: str
    treated: Value
    baseline: Value
    smallest_effect: float
    direction: Direction = "less"

    def pairs(self, experiment: Experiment, numbers: Numbers) -> Pairs:
        """Returns the measure of the paired trials of an experiment, by seed."""
        pairs = pair_runs(
            experiment.runs,
            [self.factor],
            [self.baseline],
            [self.treated],
            experiment.other_factors(self.factor),
        )
        return average_by_seed(pairs, lambda run: numbers[run.run_id][self.measure.name])

    def __call__(self, experiment: Experiment, numbers: Numbers) -> Claim:
        """Judges the claim by the runs of an experiment."""
        pairs = self.pairs(experiment, numbers)
        comparison = compare(pairs, self.direction)
        verdict, reason = judge(comparison, self.direction, self.smallest_effect)
        values = (show_value(self.factor, value) for value in (self.treated, self.baseline))
        title = f"{self.measure.title}: {' − '.join(values)}"
        return Claim.of(self.statement, title, verdict, reason, comparison, pairs)


def judge(comparison: Comparison, direction: Direction, smallest: float) -> tuple[Verdict, str]:
    """Returns the verdict of a paired test in the claimed direction, and the reason.

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
