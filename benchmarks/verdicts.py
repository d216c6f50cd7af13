"""How often verdicts are wrong: synthetic experiments whose truth is known.

Each experiment has four claims, of which all are false (their effects are 0), or all are as true as they
must be (their effects are the smallest that matter). Differences of a seed have twice the spread of the
smallest effect, so that luck has a say. Skewed differences lean to either side at random.

    python -m benchmarks.verdicts
"""

import argparse
import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.measures import MEASURES
from analysis.reading.experiment import Experiment
from analysis.verdicts import CLAIMS
from analysis.verdicts.claim import Claim
from analysis.verdicts.verdict import judge_claims
from tests.support.hand_made import experiment_of, run

Sample = Callable[[np.random.Generator, tuple[int, ...]], NDArray[np.float64]]

NUM_SEEDS = (7, 10, 12, 20)

NAMES = ("a", "b", "d", "e")
"""Claims whose measures differ, so that each can have a truth of its own."""

DISTRIBUTIONS: dict[str, Sample] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "skewed (skewness 1)": lambda rng, shape: (rng.gamma(4, size=shape) - 4) / 2,
    "very skewed (skewness 2)": lambda rng, shape: rng.exponential(size=shape) - 1,
    "tied (few values)": lambda rng, shape: np.round(rng.normal(size=shape)),
    "half of them 0": lambda rng, shape: np.where(rng.random(shape) < 0.5, 0, rng.normal(size=shape)),
    "heavy-tailed (t, 3 degrees)": lambda rng, shape: rng.standard_t(3, size=shape) / np.sqrt(3),
}
"""Differences with mean 0; most have standard deviation 1."""

BEYOND: dict[str, Sample] = {
    "one in ten far off": lambda rng, shape: (
        np.where(rng.random(shape) < 0.1, -3.0, 1 / 3) + rng.normal(0, 0.01, shape)
    ),
}
"""Differences for which no test of so few values keeps the promise: most samples show no sign of the tail."""


@dataclass(frozen=True)
class ErrorRates:
    """How often verdicts are wrong, as shares.

    Attributes:
        false_supported: experiments without any true claim in which at least one is `supported`.
        wrong_not_supported: claims with the smallest effect that matters that are `not supported` or
            `real but negligible`.
        coverage: intervals that contain the truth.
        supported: claims with three times the smallest effect that are `supported`, to show that there
            is power.
    """

    false_supported: float
    wrong_not_supported: float
    coverage: float
    supported: float


def simulate(sample: Sample, num_seeds: int, num_experiments: int, seed: int = 0) -> ErrorRates:
    """Judges many experiments with differences of a distribution."""
    rng = np.random.default_rng([seed, num_seeds])
    claims = {name: _alone(CLAIMS[name], num_seeds) for name in NAMES}
    experiment = _grid(num_seeds)
    # statsmodels collects garbage with every correction, which takes long where there are many objects.
    gc.freeze()
    any_supported, refuted, supported, covered = [], [], [], []
    for _ in range(num_experiments):
        statuses, is_covered = _judge(claims, experiment, sample, rng, lambda claim: claim.null)
        any_supported.append("supported" in statuses)
        covered += is_covered
        statuses, is_covered = _judge(claims, experiment, sample, rng, lambda claim: claim.smallest_effect)
        refuted += [status in ("not supported", "real but negligible") for status in statuses]
        covered += is_covered
        statuses, _ = _judge(claims, experiment, sample, rng, lambda claim: 3 * abs(claim.smallest_effect))
        supported += [status == "supported" for status in statuses]
    return ErrorRates(*(float(np.mean(each)) for each in (any_supported, refuted, covered, supported)))


def _alone(claim: Claim, num_seeds: int) -> Claim:
    """The claim without what is only shown beside it, which would take most of the time.

    Its measure is one that is not yes or no, so that it can have any of the differences.
    """
    measure = claim.second_measure if claim.measure == "target_missed" else claim.measure
    changes = {"measure": measure, "num_seeds": num_seeds, "second_measure": None, "beside": []}
    return claim.model_copy(update={**changes, "match": "setting"})


def _grid(num_seeds: int) -> Experiment:
    """The grid that asks these claims, with one pair of each seed for each."""
    settings = [
        {"sampling": "single", "depth": "sink", "elasticity": True},
        {"sampling": "bi_random", "depth": "sink", "elasticity": True},
        {"sampling": "bi_random", "depth": "skip", "elasticity": True},
        {"sampling": "bi_random", "depth": "sink", "elasticity": False},
        {"sampling": "single", "depth": "skip", "elasticity": False},
    ]
    return experiment_of(
        [run(str(setting), **setting, seed=seed) for setting in settings for seed in range(num_seeds)]
    )


def _judge(
    claims: dict[str, Claim],
    experiment: Experiment,
    sample: Sample,
    rng: np.random.Generator,
    truth: Callable[[Claim], float],
) -> tuple[list[str], list[bool]]:
    """Verdicts on one experiment, and which intervals contain the truth."""
    numbers = {one.run_id: dict.fromkeys(MEASURES, 0.0) for one in experiment.runs}
    for claim in claims.values():
        lean = rng.choice([-1.0, 1.0])
        difference_N = truth(claim) + 2 * abs(claim.smallest_effect) * lean * sample(rng, (claim.num_seeds,))
        for one in experiment.runs:
            # A run may be treated in one claim and baseline in another.
            if all(one.config[name] == value for name, value in claim.treated.items()):
                numbers[one.run_id][claim.measure] = float(claim.sign * difference_N[int(str(one.seed))])
    verdicts = judge_claims(claims, experiment, numbers)
    covered = [
        one.estimate.interval[0] - 1e-9
        <= one.claim.sign * truth(one.claim)
        <= one.estimate.interval[1] + 1e-9
        for one in verdicts
        if one.estimate.interval is not None
    ]
    return [one.status for one in verdicts], covered


def table(num_experiments: int, all_num_seeds: Sequence[int] = NUM_SEEDS) -> list[str]:
    """The rows of the table in docs/claims.md, in Markdown."""
    lines = [
        "| differences | seeds | false *supported* | wrong *not supported* | coverage | power |",
        "|---|---|---|---|---|---|",
    ]
    for name, sample in (DISTRIBUTIONS | BEYOND).items():
        for num_seeds in all_num_seeds:
            rates = simulate(sample, num_seeds, num_experiments)
            cells = [rates.false_supported, rates.wrong_not_supported, rates.coverage, rates.supported]
            lines.append(
                f"| {name} | {num_seeds} | " + " | ".join(f"{100 * one:.1f} %" for one in cells) + " |"
            )
            print(lines[-1], flush=True)
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiments", type=int, default=1000, help="Experiments for each row.")
    table(parser.parse_args().experiments)
