"""Seed plan: what a grid can find out about its claims, before it runs."""

import math
from collections.abc import Mapping

from analysis.measures import measure_runs
from analysis.reading.captions import count
from analysis.reading.experiment import Experiment
from analysis.reading.registration import Registration
from analysis.reading.run import ComparisonBasis, Run
from analysis.verdicts.claim import Claim, parse_record
from analysis.verdicts.pairing import Contrast, pair_seeds
from analysis.verdicts.power import describe_plan, plan_seeds
from analysis.verdicts.verdict import Estimate, judge_claims


def describe_plans(registration: Registration, earlier: Experiment | None) -> list[str]:
    """Returns a line for each claim that a grid asks: which effect its seeds detect.

    Args:
        registration: grid and claims.
        earlier: an experiment with a known spread over seeds; None if there is none.
    """
    claims = {
        name: parse_record(fields, f"{registration.file}: claims.{name}")
        for name, fields in registration.claims.items()
    }
    num_seeds = {name: _count_seeds(claim, registration) for name, claim in claims.items()}
    asked = {name: claim for name, claim in claims.items() if num_seeds[name]}
    spreads = _spreads(asked, earlier) if earlier else {}
    lines = []
    for name, claim in asked.items():
        used = min(num_seeds[name], claim.num_seeds)
        found = spreads.get(name)
        spread = found.spread if found else None
        plan = plan_seeds(claim.num_seeds, claim.smallest_effect, len(asked), spread)
        parts = [describe_plan(plan, claim.num_seeds, claim.smallest_effect)]
        if found:
            parts.append(
                f"the standard deviation is that of {count(found.n, 'seed')} of the earlier experiment"
            )
        if used < claim.num_seeds:
            parts.append(f"the grid has {used}, so the verdict stays pending")
        if num_seeds[name] > claim.num_seeds:
            parts.append(
                f"the grid has {num_seeds[name]}, of which the first {used} count; to use all, set "
                f"claims.{name}.num_seeds"
            )
        lines.append(f"({name}) {claim.statement} {'; '.join(parts)}")
    return lines


def _count_seeds(claim: Claim, registration: Registration) -> int:
    """Number of seeds with a pair that the claim compares."""
    cells = tuple(registration.not_started(cell) for cell in registration.cells)
    grid = Experiment(
        name="",
        experiment_id="",
        tracking_uri="",
        basis=ComparisonBasis("", ""),
        runs=(),
        missing=cells,
        training=(),
        notices=(),
        registered=registration,
    )
    return len(pair_seeds(grid, Contrast.of(claim), _unknown))


def _unknown(run: Run) -> float:
    """Which trials have equal latency is not known yet."""
    return math.nan


def _spreads(claims: Mapping[str, Claim], earlier: Experiment) -> dict[str, Estimate]:
    """Estimates of an earlier experiment that have a spread."""
    verdicts = judge_claims(claims, earlier, measure_runs(earlier))
    return {one.name: one.estimate for one in verdicts if one.estimate.spread > 0}
