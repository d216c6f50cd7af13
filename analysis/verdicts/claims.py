"""The claims of the paper.

The rules were fixed before any result was seen and are explained in docs/claims.md: one measure per claim,
one direction, one smallest effect that matters.

Source: TF-NAS, the three search freedoms and their remedies.
"""

from dataclasses import replace

import numpy as np

from analysis.measures.accuracy import is_selected_on_test
from analysis.measures.latency_error import TARGET, TOLERANCE_PERCENT, is_saturated, meets_target
from analysis.measures.measure import Numbers
from analysis.measures.run_measures import (
    ABS_LATENCY_ERROR,
    FLUCTUATION,
    LATENCY,
    LOCKED_EARLY,
    REDUNDANT,
    SUPERNET_ACCURACY,
    TEST_ACCURACY,
)
from analysis.measures.summary import MIN_SEEDS
from analysis.reading.captions import count
from analysis.reading.experiment import Experiment
from analysis.reading.run import SEED, Run
from analysis.reading.values import Value
from analysis.verdicts.statistics import average_by_seed, compare
from analysis.verdicts.verdict import Claim, PairedClaim, Verdict, judge

REDUCES_COLLAPSE = PairedClaim(
    "Bi-sampling reduces operator collapse.",
    LOCKED_EARLY,
    "sampling",
    treated="bi_random",
    baseline="single",
    smallest_effect=0.10,
)
REDUCES_FLUCTUATION = PairedClaim(
    "Sink-connecting reduces depth fluctuation.",
    FLUCTUATION,
    "depth",
    treated="sink",
    baseline="skip",
    smallest_effect=0.10,
)
REMOVES_REDUNDANCY = PairedClaim(
    "Sink-connecting removes redundancy.",
    REDUNDANT,
    "depth",
    treated="sink",
    baseline="skip",
    smallest_effect=0.05,
)
MEETS_TARGETS = PairedClaim(
    "Elasticity-scaling meets the latency target whatever the objective and its weight; without it the "
    "target is missed.",
    ABS_LATENCY_ERROR,
    "elasticity",
    treated=True,
    baseline=False,
    smallest_effect=TOLERANCE_PERCENT,
)

ACCURACY_MARGIN = 0.005
"""An accuracy lower by no more than this is still 'at least as accurate'."""

EQUAL_LATENCY = 1.05
"""Latencies count as equal if the method's is at most so many times the baseline's."""

MIN_SHARE_MET = 0.95
"""Least share of the elastic trials that must meet their target."""

_OBJECTIVE = ("objective", "latency_weight", "objective_scale", "objective_exponent")
_METHOD: dict[str, Value] = {"sampling": "bi_random", "depth": "sink", "elasticity": True}
_BASELINE: dict[str, Value] = {"sampling": "single", "depth": "skip", "elasticity": False}


def removes_redundancy(experiment: Experiment, numbers: Numbers) -> Claim:
    """Judges (c): the share of redundant epochs falls, and is 0 in the sink space."""
    claim = REMOVES_REDUNDANCY(experiment, numbers)
    with_sinks_N = REMOVES_REDUNDANCY.pairs(experiment, numbers).treated_N
    if len(with_sinks_N) and with_sinks_N.max() > 0:
        reason = f"the sink space had redundant epochs too (a share of {with_sinks_N.mean():.2g})"
        return replace(claim, verdict="not supported", reason=reason)
    return claim


def meets_targets(experiment: Experiment, numbers: Numbers) -> Claim:
    """Judges (d): the error falls, elastic trials meet their targets, and others miss theirs."""
    claim = MEETS_TARGETS(experiment, numbers)
    elastic = [run for run in experiment.runs if run.config.get("elasticity") is True]
    missed = [run for run in elastic if not meets_target(numbers[run.run_id][ABS_LATENCY_ERROR.name])]
    settings = {run.setting(_OBJECTIVE) for run in elastic}
    counts = (
        f"{len(elastic) - len(missed)} of {len(elastic)} elastic trials are within {TOLERANCE_PERCENT:g} % "
        f"of their target ({sum(map(is_saturated, missed))} of the others have every width at its bound), "
        f"under {count(len(settings), 'setting')} of objective and weight"
    )
    verdict, reason = claim.verdict, claim.reason
    if len(missed) > (1 - MIN_SHARE_MET) * len(elastic):
        verdict = "not supported" if len({run.seed for run in elastic}) >= MIN_SEEDS else "undecided"
    elif verdict == "supported" and len(settings) < 2:
        verdict, reason = "undecided", f"{reason}, but under one objective and weight only"
    elif verdict == "supported" and meets_target(
        float(np.mean(MEETS_TARGETS.pairs(experiment, numbers).baseline_N))
    ):
        verdict, reason = "not supported", "without elasticity-scaling the target was met too"
    return replace(claim, verdict=verdict, reason=f"{counts}; {reason}")


def is_as_accurate(experiment: Experiment, numbers: Numbers) -> Claim:
    """Judges (e): the accuracy of the whole method is not lower than that of the baseline."""
    is_trained = any(np.isfinite(numbers[run.run_id][TEST_ACCURACY.name]) for run in experiment.runs)
    measure = TEST_ACCURACY if is_trained else SUPERNET_ACCURACY
    matches, num_unmatched = _match_latencies(experiment, numbers)
    pairs = average_by_seed(matches, lambda run: numbers[run.run_id][measure.name])
    comparison = compare(pairs, "greater", margin=-ACCURACY_MARGIN)
    verdict: Verdict
    verdict, reason = judge(comparison, "greater", -ACCURACY_MARGIN)
    if not is_trained:
        verdict, reason = "undecided", f"no derived network was trained; by held-out accuracy: {reason}"
    if num_unmatched:
        reason += f"; {num_unmatched} baseline trials have no trial of the method that is as fast"
    if is_trained and any(map(is_selected_on_test, experiment.training)):
        reason += "; test accuracies are selected on test images"
    return Claim.of(
        "At equal latency, the whole method is at least as accurate as single-path sampling in the skip "
        "space without elasticity-scaling.",
        f"{measure.title}: whole method − baseline (margin {ACCURACY_MARGIN:g})",
        verdict,
        reason,
        comparison,
        pairs,
    )


def _match_latencies(experiment: Experiment, numbers: Numbers) -> tuple[list[tuple[Run, Run]], int]:
    """Pairs each baseline trial with the slowest trial of the method that is as fast.

    Both have the same seed and the same other factors, but may have different targets: the baseline
    misses its own.

    Returns:
        The pairs, and the number of baseline trials without a partner.
    """
    others = (SEED, *experiment.other_factors(*_METHOD, TARGET))

    def latency_ms(run: Run) -> float:
        return numbers[run.run_id][LATENCY.name]

    method = [run for run in experiment.runs if run.setting(_METHOD) == tuple(_METHOD.values())]
    baselines = [run for run in experiment.runs if run.setting(_METHOD) == tuple(_BASELINE.values())]
    matches = []
    for baseline in baselines:
        as_fast = [
            run
            for run in method
            if run.setting(others) == baseline.setting(others)
            and latency_ms(run) <= EQUAL_LATENCY * latency_ms(baseline)
        ]
        if as_fast:
            matches.append((max(as_fast, key=latency_ms), baseline))
    return matches, len(baselines) - len(matches)
