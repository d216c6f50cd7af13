"""Effects: the contrast of a claim at each level of the other factors, and how these differ.

None of this is tested; it shows where an effect comes from. Intervals are those of single effects.
"""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from analysis.measures.latency_error import TARGET
from analysis.measures.measure import Numbers
from analysis.reading.experiment import Experiment
from analysis.reading.run import Run
from analysis.reading.values import Value, show_value
from analysis.verdicts.claim import Claim, Setting, show_contrast, show_setting
from analysis.verdicts.pairing import Comparison, Contrast
from analysis.verdicts.verdict import Estimate, Verdict, compare, estimate


@dataclass(frozen=True)
class Effect:
    """A difference between settings, or between two such differences.

    Attributes:
        contrast: what is subtracted from what.
        level: where: a level of another factor, or the difference between two.
    """

    contrast: str
    level: str
    estimate: Estimate
    runs: tuple[Run, ...]


def effects_of(verdict: Verdict, experiment: Experiment, numbers: Numbers) -> list[Effect]:
    """Returns the effect that is tested, that at each level of the other factors, and other contrasts."""
    claim = verdict.claim
    measured = partial(compare, experiment, numbers, measure=claim.measure, num_seeds=claim.num_seeds)
    tested = Contrast.of(claim)
    where = show_setting(claim.within) or "all"
    effects = [Effect(claim.contrast, f"as claimed: {where}", verdict.estimate, verdict.runs)]
    # Pairs of equal latency have different targets.
    skipped = (TARGET,) if tested.by_latency else ()
    for factor in experiment.other_factors(*claim.treated, *skipped):
        effects += _by_level(claim, factor, experiment, measured)
    for one, other in _other_pairs(claim, experiment):
        contrast = replace(tested, treated=one, baseline=other)
        effects.append(_effect(show_contrast(one, other), where, measured(contrast), claim.measure))
    if not verdict.is_due:
        # An interval would be a look at the test.
        effects = [replace(one, estimate=replace(one.estimate, interval=None)) for one in effects]
    return [effect for effect in effects if effect.estimate.n]


def _by_level(
    claim: Claim, factor: str, experiment: Experiment, measured: partial[Comparison]
) -> list[Effect]:
    """The effect at each level of a factor, and how the others differ from the first."""
    elsewhere = {name: value for name, value in claim.within.items() if name != factor}
    of_level: dict[Value, Comparison] = {}
    for level in dict.fromkeys(run.config.get(factor) for run in experiment.grid_cells):
        contrast = replace(Contrast.of(claim), within=elsewhere | {factor: level})
        comparison = measured(contrast)
        if len(comparison.complete_seeds):
            of_level[level] = comparison
    if len(of_level) < 2:
        return []
    effects = [
        _effect(claim.contrast, show_value(factor, level), comparison, claim.measure)
        for level, comparison in of_level.items()
    ]
    first, *others = of_level
    return effects + [
        _interaction(claim, factor, (level, of_level[level]), (first, of_level[first])) for level in others
    ]


def _interaction(
    claim: Claim, factor: str, one: tuple[Value, Comparison], other: tuple[Value, Comparison]
) -> Effect:
    """By how much the effect at one level exceeds that at another, by seed."""
    by_seed = [
        {each.seed: value for each, value in zip(part.complete_seeds, part.difference_N, strict=True)}
        for _, part in (one, other)
    ]
    difference_N = np.array(
        [by_seed[0][seed] - by_seed[1][seed] for seed in by_seed[0] if seed in by_seed[1]]
    )
    levels = " − ".join(show_value(factor, level) for level, _ in (one, other))
    runs = tuple({run.run_id: run for _, part in (one, other) for run in part.runs}.values())
    return Effect(claim.contrast, f"interaction: {levels}", estimate(difference_N, None), runs)


def _other_pairs(claim: Claim, experiment: Experiment) -> list[tuple[Setting, Setting]]:
    """The other levels of the factor against the baseline, and the treated level against these.

    None if the contrast has several fields.
    """
    if len(claim.treated) > 1:
        return []
    (factor,) = claim.treated
    levels = dict.fromkeys(run.config.get(factor) for run in experiment.grid_cells)
    known = (claim.treated[factor], claim.baseline[factor])
    others: list[Setting] = [{factor: level} for level in levels if level not in known]
    return [*((other, claim.baseline) for other in others), *((claim.treated, other) for other in others)]


def _effect(contrast: str, level: str, comparison: Comparison, measure: str) -> Effect:
    return Effect(contrast, level, estimate(comparison.difference_N, measure), comparison.runs)
