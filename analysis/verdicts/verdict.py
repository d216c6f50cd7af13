"""Verdicts: what the trials of an experiment say about its claims."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from statsmodels.stats.multitest import multipletests

from analysis.measures import MEASURES
from analysis.measures.accuracy import is_selected_on_test
from analysis.measures.measure import Measure, Numbers
from analysis.measures.run_measures import LATENCY, TEST_ACCURACY
from analysis.measures.sign_flips import MIN_VALUES, interval, p_value
from analysis.reading import tags
from analysis.reading.captions import count
from analysis.reading.experiment import Experiment
from analysis.reading.run import Run
from analysis.verdicts.claim import Claim, show_setting
from analysis.verdicts.pairing import Comparison, Contrast, pair_seeds
from analysis.verdicts.power import ALPHA, seeds_needed
from analysis.verdicts.registered import earlier_grids, most_claims_asked, when_registered

Status = Literal["supported", "real but negligible", "not supported", "undecided", "pending", "not asked"]

_MAX_NAMES = 4
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Estimate:
    """The mean difference, treated minus baseline, and how sure it is.

    Attributes:
        n: number of seeds.
        interval: 95 %; None with fewer than 7 seeds, or if all differences are 0.
        spread: standard deviation of the differences; NaN with fewer than 2.
        p_value: one-sided, in the claimed direction; None if there is no test.
        p_holm: the same, corrected for the number of claims that the grid asks.
    """

    n: int
    mean: float
    interval: tuple[float, float] | None
    spread: float
    p_value: float | None = None
    p_holm: float | None = None

    @property
    def text(self) -> str:
        """Mean, interval and p-value in a line; a dash without any seed."""
        if not self.n:
            return "–"
        parts = [f"{self.mean:+.3g}"]
        if self.interval is not None:
            parts.append(f"95 % interval [{self.interval[0]:.3g}, {self.interval[1]:.3g}]")
        if self.p_value is not None:
            corrected = "" if self.p_holm is None else f", {self.p_holm:.2g} by Holm"
            parts.append(f"p = {self.p_value:.2g}{corrected}")
        return ", ".join(parts)


@dataclass(frozen=True)
class Verdict:
    """A claim, and what the trials of an experiment show about it.

    Attributes:
        name: of the claim, a letter for those of the paper.
        reason: why this verdict, in a clause.
        estimate: of treated minus baseline; without a test while seeds are missing.
        num_pairs: number of pairs of trials behind it.
        lost: failed trials, and those for which the measure is undefined.
        sensitivity: what the verdict would be under other choices, one line each.
        beside: means of further measures, treated and baseline, one line each.
        caveats: what else a reader has to know, one line each.
        is_registered: whether claim and grid were registered before the first trial.
        registration: the same in a clause, with the time; empty if the grid does not ask the claim.
        comparison: the pairs.
    """

    name: str
    claim: Claim
    status: Status
    reason: str
    estimate: Estimate
    num_pairs: int
    lost: tuple[Run, ...]
    sensitivity: tuple[str, ...]
    beside: tuple[str, ...]
    caveats: tuple[str, ...]
    is_registered: bool
    registration: str
    comparison: Comparison

    @property
    def is_due(self) -> bool:
        """Whether its registered seeds have ended, so that there is a test."""
        return self.status not in ("pending", "not asked")

    @property
    def measure(self) -> str:
        """What was compared, with its unit."""
        return f"{MEASURES[self.claim.measure].title}: {self.claim.contrast}"

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs behind the estimate."""
        return self.comparison.runs


def compare(
    experiment: Experiment,
    numbers: Numbers,
    contrast: Contrast,
    measure: str,
    num_seeds: int | None = None,
) -> Comparison:
    """Returns a measure of the pairs of a contrast, by seed."""
    failed = {run.tags.get(tags.SEARCH_RUN) for run in experiment.failed_training}

    def is_to_come(run: Run) -> bool:
        return MEASURES[measure].comes_later and run.run_id not in failed

    seeds = pair_seeds(experiment, contrast, partial(_value, numbers, LATENCY.name), num_seeds)
    return Comparison(seeds, partial(_value, numbers, measure), is_to_come)


def estimate(difference_N: NDArray[np.float64], measure: str | None, *, is_due: bool = True) -> Estimate:
    """Returns the mean of differences, and its interval if a verdict is due; without a test.

    Args:
        measure: whose differences they are, for their bounds; None if they have none.
    """
    n = len(difference_N)
    spread = float(difference_N.std(ddof=1)) if n > 1 else float("nan")
    return Estimate(
        n,
        float(difference_N.mean()) if n else float("nan"),
        interval(difference_N, MEASURES[measure].difference_bounds if measure else None) if is_due else None,
        spread,
    )


def judge_claims(claims: Mapping[str, Claim], experiment: Experiment, numbers: Numbers) -> list[Verdict]:
    """Judges claims together: Holm's correction is for all that were asked, tested already or not."""
    comparisons = {
        name: compare(experiment, numbers, Contrast.of(claim), claim.measure, claim.num_seeds)
        for name, claim in claims.items()
    }
    p_values = {
        name: _p_value(claims[name], comparison.difference_N, claims[name].measure)
        if _is_due(claims[name], comparison)
        else None
        for name, comparison in comparisons.items()
        if comparison.seeds
    }
    # Claims that earlier launches of these trials asked count, too: they may have been dropped after a look.
    dropped = range(most_claims_asked(experiment) - len(p_values))
    p_values |= {f"dropped {place}": None for place in dropped}
    return [
        _judge_one(name, claim, comparisons[name], p_values, experiment, numbers)
        for name, claim in claims.items()
    ]


def decide(claim: Claim, found: Estimate, num_claims: int) -> tuple[Status, str]:
    """Returns the verdict of a test, and the reason.

    Args:
        num_claims: that the grid asks.
    """
    if found.p_holm is None:
        return "undecided", f"{count(found.n, 'complete seed')}; a test needs {MIN_VALUES}"
    effect = claim.sign * found.mean
    high = max(claim.sign * bound for bound in found.interval) if found.interval else float("inf")
    # Differences of shares are not exact in binary.
    reached = claim.smallest_effect - _ROUNDING * abs(claim.smallest_effect)
    is_significant = found.p_holm <= ALPHA
    significance = f"p = {found.p_holm:.2g}{', corrected by Holm' if num_claims > 1 else ''}"
    if is_significant and effect >= reached:
        return "supported", f"{significance}, and the estimate reaches {claim.smallest_effect:g}"
    if high < reached:
        excluded = f"the interval excludes an effect of {claim.smallest_effect:g}"
        if is_significant:
            return "real but negligible", f"{significance}, but {excluded}"
        return "not supported", excluded
    if is_significant:
        significance = f"{significance}, but the estimate is below {claim.smallest_effect:g}"
    if not found.spread:
        return (
            "undecided",
            f"{significance}; all differences are equal, so their spread is unknown",
        )
    return "undecided", f"{significance}; {_seeds_to_add(claim, found, effect, num_claims)}"


def _seeds_to_add(claim: Claim, found: Estimate, effect: float, num_claims: int) -> str:
    """How many new seeds would decide.

    Those that detect the smallest effect or, if there are enough for that, those that would exclude it if
    the estimate is right.
    """
    needed = seeds_needed(abs(claim.smallest_effect), found.spread, ALPHA / num_claims)
    purpose = f"to detect an effect of {claim.smallest_effect:g}"
    if claim.smallest_effect < 0:
        purpose = f"to exclude a loss of {-claim.smallest_effect:g}"
    if needed is not None and needed <= found.n:
        needed = seeds_needed(abs(claim.smallest_effect - effect), found.spread, ALPHA / 2)
        purpose = f"to distinguish an effect of {effect:.2g} from {claim.smallest_effect:g}"
    number = "more than 1,000" if needed is None else f"about {needed}"
    return f"{number} more seeds, in a new grid, have 80 % power {purpose}"


def _judge_one(
    name: str,
    claim: Claim,
    comparison: Comparison,
    p_values: Mapping[str, float | None],
    experiment: Experiment,
    numbers: Numbers,
) -> Verdict:
    is_due = _is_due(claim, comparison)
    found = estimate(comparison.difference_N, claim.measure, is_due=is_due)
    num_claims = len(p_values)
    status: Status
    if not comparison.seeds:
        status, reason = "not asked", f"the grid has no pairs of {_sides(claim)}"
    elif not is_due:
        status, reason = "pending", _why_pending(claim, comparison)
    else:
        found = _with_test(found, name, p_values)
        status, reason = decide(claim, found, num_claims)
    needs_training = MEASURES[claim.measure].comes_later
    is_registered, registration = False, ""
    if status != "not asked":
        is_registered, registration = when_registered(
            name, claim, comparison, experiment, needs_training=needs_training
        )
    return Verdict(
        name,
        claim,
        status,
        reason,
        found,
        comparison.num_pairs,
        comparison.lost_runs,
        tuple(_sensitivity(name, claim, comparison, p_values, experiment, numbers)) if is_due else (),
        tuple(_beside(claim, comparison, numbers)),
        tuple(_caveats(name, claim, comparison, experiment)),
        is_registered,
        registration,
        comparison,
    )


def _value(numbers: Numbers, measure: str, run: Run) -> float:
    return numbers.get(run.run_id, {}).get(measure, float("nan"))


def _is_due(claim: Claim, comparison: Comparison) -> bool:
    """Whether all registered seeds have ended."""
    return len(comparison.ended_seeds) >= claim.num_seeds


def _p_value(claim: Claim, difference_N: NDArray[np.float64], measure: str) -> float | None:
    if len(difference_N) < MIN_VALUES:
        return None
    return p_value(
        difference_N, claim.direction, claim.sign * claim.null, MEASURES[measure].difference_bounds
    )


def _holm(p_values: Mapping[str, float | None]) -> dict[str, float]:
    """P-values corrected for the number of claims; one that is not tested counts as not significant."""
    if not p_values:
        return {}
    corrected = multipletests([1.0 if p is None else p for p in p_values.values()], method="holm")[1]
    return dict(zip(p_values, map(float, corrected), strict=True))


def _with_test(found: Estimate, name: str, p_values: Mapping[str, float | None]) -> Estimate:
    p = p_values[name]
    return found if p is None else replace(found, p_value=p, p_holm=_holm(p_values)[name])


def _why_pending(claim: Claim, comparison: Comparison) -> str:
    done = f"{len(comparison.ended_seeds)} of {claim.num_seeds} seeds"
    if len(comparison.seeds) < claim.num_seeds:
        return f"{done}; the grid has {len(comparison.seeds)}"
    waiting = {run.name: run for each in comparison.open_seeds for run in each.waiting_for}
    if waiting:
        return f"{done}; still to end: {_names(list(waiting))}"
    return f"{done}; {MEASURES[claim.measure].heading} of the others is still to come"


def _sensitivity(
    name: str,
    claim: Claim,
    comparison: Comparison,
    p_values: Mapping[str, float | None],
    experiment: Experiment,
    numbers: Numbers,
) -> list[str]:
    lines = []
    if comparison.lost_runs and comparison.complete_seeds:
        worst_N = comparison.differences_at_worst(claim.sign)
        replaced = dict(p_values) | {name: _p_value(claim, worst_N, claim.measure)}
        found = _with_test(estimate(worst_N, claim.measure), name, replaced)
        status, _ = decide(claim, found, len(p_values))
        lost = count(len(comparison.lost_runs), "lost trial")
        lines.append(f"with {lost} at their worst: {status}, {found.text}; n = {count(found.n, 'seed')}")
    if claim.second_measure is not None:
        other = compare(experiment, numbers, Contrast.of(claim), claim.second_measure, claim.num_seeds)
        found = estimate(other.difference_N, claim.second_measure)
        p = _p_value(claim, other.difference_N, claim.second_measure)
        if found.n:
            found = replace(found, p_value=p)
            lines.append(
                f"by another definition ({MEASURES[claim.second_measure].title}): {found.text}; "
                f"n = {count(found.n, 'seed')}"
            )
    return lines


def _beside(claim: Claim, comparison: Comparison, numbers: Numbers) -> list[str]:
    lines = []
    for name in claim.beside:
        measure: Measure = MEASURES[name]
        treated, baseline = (comparison.side_mean(partial(_value, numbers, name), side) for side in (0, 1))
        if not np.isnan([treated, baseline]).any():
            lines.append(
                f"{measure.title}: {treated:.3g} ({show_setting(claim.treated)}), "
                f"{baseline:.3g} ({show_setting(claim.baseline)})"
            )
    return lines


def _caveats(name: str, claim: Claim, comparison: Comparison, experiment: Experiment) -> list[str]:
    lines = []
    if comparison.lost_runs:
        lines.append(f"lost: {_names([f'{run.name} ({_why_lost(run)})' for run in comparison.lost_runs])}")
    unmatched = [run.name for each in comparison.ended_seeds if not each.unpaired for run in each.unmatched]
    if unmatched:
        lines.append(f"no treated trial is as fast as {_names(unmatched)}")
    if earlier := earlier_grids(name, experiment):
        lines.append(earlier)
    is_trained = claim.measure == TEST_ACCURACY.name
    if is_trained and any(map(is_selected_on_test, experiment.training)):
        lines.append("test accuracies are selected on test images")
    return lines


def _why_lost(run: Run) -> str:
    return run.outcome if not run.is_finished else "undefined"


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(names[:_MAX_NAMES]) + more


def _sides(claim: Claim) -> str:
    within = f" within {show_setting(claim.within)}" if claim.within else ""
    return f"{show_setting(claim.treated)} and {show_setting(claim.baseline)}{within}"
