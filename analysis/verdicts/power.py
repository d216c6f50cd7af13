"""Power: which effect a number of seeds can detect, and how many seeds an effect needs.

Effects are in standard deviations of the paired differences, which are taken to be normal. An effect is
detected if the test is significant at the level of the first step of Holm's correction.
"""

from bisect import bisect_left
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import optimize, stats

from analysis.measures.sign_flips import MIN_VALUES, lower_bound

POWER = 0.8
ALPHA = 0.05

_MAX_SIMULATED = 12
_NUM_SIMULATED = 400
MAX_SEEDS = 1000


@dataclass(frozen=True)
class SeedPlan:
    """What a grid can find out about a claim.

    Attributes:
        spread: standard deviation of the paired differences of an earlier experiment; None if unknown.
        detectable: smallest effect that is detected with 80 % power, in the unit of the measure or, if
            the spread is unknown, in standard deviations.
        num_needed: seeds that detect the smallest effect that matters with 80 % power; None if the
            spread is unknown, or more than 1,000 are needed.
    """

    spread: float | None
    detectable: float
    num_needed: int | None


def plan_seeds(num_seeds: int, smallest_effect: float, num_claims: int, spread: float | None) -> SeedPlan:
    """Returns what a number of seeds can find out about one of several claims."""
    alpha = ALPHA / num_claims
    detectable = detectable_effect(num_seeds, alpha)
    if spread is None:
        return SeedPlan(None, detectable, None)
    return SeedPlan(spread, detectable * spread, seeds_needed(abs(smallest_effect), spread, alpha))


@cache
def detectable_effect(num_seeds: int, alpha: float, power: float = POWER) -> float:
    """Returns the effect that `num_seeds` detect with this power, in standard deviations.

    Infinite if so few seeds cannot be significant at this level, whatever the effect.
    """
    if num_seeds < MIN_VALUES or 2.0**-num_seeds > alpha:
        return float("inf")
    if num_seeds > _MAX_SIMULATED:
        # With more seeds the test has the power of Student's t.
        return float(optimize.brentq(lambda effect: _power_of_t(num_seeds, effect, alpha) - power, 0, 50))
    samples = np.random.default_rng(0).normal(size=(_NUM_SIMULATED, num_seeds))
    # A sample is significant from the shift on that lifts its lower bound to 0.
    return float(np.quantile([-lower_bound(sample_N, alpha) for sample_N in samples], power))


def seeds_needed(effect: float, spread: float, alpha: float, power: float = POWER) -> int | None:
    """Returns the fewest seeds that detect an effect with this power; None for more than 1,000."""
    if spread == 0:
        return next(n for n in range(MIN_VALUES, MAX_SEEDS) if 2.0**-n <= alpha)
    for num_seeds in range(MIN_VALUES, _MAX_SIMULATED + 1):
        if detectable_effect(num_seeds, alpha, power) <= effect / spread:
            return num_seeds
    if _power_of_t(MAX_SEEDS, effect / spread, alpha) < power:
        return None
    larger = range(_MAX_SIMULATED + 1, MAX_SEEDS + 1)
    return larger[bisect_left(larger, power, key=lambda n: _power_of_t(n, effect / spread, alpha))]


def _power_of_t(num_seeds: int, effect: float, alpha: float) -> float:
    critical = stats.t.isf(alpha, num_seeds - 1)
    return float(stats.nct.sf(critical, num_seeds - 1, effect * np.sqrt(num_seeds)))


def describe_plan(plan: SeedPlan, num_seeds: int, smallest_effect: float) -> str:
    """Writes a plan as a sentence."""
    if not np.isfinite(plan.detectable):
        return f"{num_seeds} seeds cannot decide it, whatever the effect"
    if plan.spread is None:
        widest = abs(smallest_effect) / plan.detectable
        return (
            f"{num_seeds} seeds detect {plan.detectable:.2f} standard deviations of the paired differences "
            f"(80 % power); for the smallest effect that matters, {abs(smallest_effect):g}, the standard "
            f"deviation may be at most {widest:.2g}"
        )
    needed = f"{plan.num_needed}" if plan.num_needed is not None else f"more than {MAX_SEEDS}"
    return (
        f"{num_seeds} seeds detect an effect of {plan.detectable:.2g} (80 % power; standard deviation "
        f"{plan.spread:.2g}); the smallest that matters, {abs(smallest_effect):g}, needs {needed} seeds"
    )
