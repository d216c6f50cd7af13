import itertools
from collections.abc import Callable

import numpy as np
import pytest

from analysis.measures import MEASURES
from analysis.measures.summary import Summary
from analysis.reading.run import Run
from analysis.verdicts import judge_claims
from analysis.verdicts.statistics import Comparison
from analysis.verdicts.verdict import Claim, judge
from tests.support.hand_made import experiment_of, run

METHOD = {"sampling": "bi_random", "depth": "sink", "elasticity": True}
BASELINE = {"sampling": "single", "depth": "skip", "elasticity": False}


def claims_of(runs: list[Run], **measures: Callable[[Run], float]) -> dict[str, Claim]:
    """The claims as judged from these numbers."""
    unknown = dict.fromkeys(MEASURES, float("nan"))
    numbers = {r.run_id: unknown | {name: measure(r) for name, measure in measures.items()} for r in runs}
    return {claim.letter: claim for claim in judge_claims(experiment_of(runs), numbers)}


def noise(r: Run) -> float:
    return 0.01 * float(np.random.default_rng([int(r.seed or 0), len(str(r.config))]).normal())


def samplings(num_seeds: int) -> list[Run]:
    return [run(sampling=s, depth="sink", seed=i) for s in ("single", "bi_random") for i in range(num_seeds)]


def depths(num_seeds: int) -> list[Run]:
    return [run(sampling="bi_random", depth=d, seed=i) for d in ("skip", "sink") for i in range(num_seeds)]


def elasticities(objectives: list[str]) -> list[Run]:
    cells = itertools.product(objectives, [False, True], range(5))
    return [run(objective=o, latency_weight=0.1, elasticity=e, seed=i) for o, e, i in cells]


def test_a_clear_effect_in_the_claimed_direction_is_supported():
    claim = claims_of(
        samplings(6), locked_early_share=lambda r: 0.3 + 0.4 * (r.config["sampling"] == "single") + noise(r)
    )["a"]
    assert claim.verdict == "supported"
    assert (claim.num_seeds, claim.num_cells) == (6, 6)
    assert claim.comparison is not None
    assert claim.comparison.difference.mean == pytest.approx(-0.4, abs=0.02)


def test_a_clear_effect_against_the_claim_is_not_supported():
    claim = claims_of(
        samplings(6),
        locked_early_share=lambda r: 0.3 + 0.4 * (r.config["sampling"] == "bi_random") + noise(r),
    )["a"]
    assert claim.verdict == "not supported"


def test_no_effect_worth_mentioning_is_not_supported():
    claim = claims_of(samplings(6), locked_early_share=lambda r: 0.5 + noise(r))["a"]
    assert claim.verdict == "not supported"
    assert "exclude an effect of 0.1" in claim.reason


def test_noise_that_hides_an_effect_leaves_the_claim_undecided():
    rng = np.random.default_rng(3)
    claim = claims_of(samplings(5), locked_early_share=lambda r: float(rng.uniform(0, 1)))["a"]
    assert claim.verdict == "undecided"


def test_four_seeds_decide_nothing_however_large_the_effect():
    claim = claims_of(samplings(4), locked_early_share=lambda r: float(r.config["sampling"] == "single"))["a"]
    assert claim.verdict == "undecided"
    assert "n = 4" in claim.reason


def test_a_grid_without_the_factor_has_no_trials_to_compare():
    claims = claims_of([run(sampling="bi_random", depth="sink", seed=i) for i in range(6)])
    assert {claim.verdict for claim in claims.values()} == {"undecided"}
    assert claims["a"].reason == "no trials to compare"


def test_the_other_samplings_do_not_count_as_bi_sampling():
    runs = [run(sampling=s, seed=i) for s in ("single", "bi_min") for i in range(6)]
    assert claims_of(runs, locked_early_share=lambda r: 0.5)["a"].num_seeds == 0


def test_redundancy_is_removed_only_if_the_sink_space_has_none():
    removed = claims_of(depths(5), redundant_share=lambda r: 0.6 * (r.config["depth"] == "skip"))["c"]
    lessened = claims_of(depths(5), redundant_share=lambda r: 0.6 if r.config["depth"] == "skip" else 0.1)[
        "c"
    ]
    assert (removed.verdict, lessened.verdict) == ("supported", "not supported")


def test_targets_are_met_if_elastic_trials_meet_them_under_several_objectives_and_others_do_not():
    claim = claims_of(
        elasticities(["tfnas", "fbnet"]),
        abs_latency_error_percent=lambda r: 0.2 if r.config["elasticity"] else 30.0,
    )["d"]
    assert claim.verdict == "supported"
    assert "10 of 10 elastic trials" in claim.reason


def test_one_objective_cannot_support_whatever_the_objective():
    claim = claims_of(
        elasticities(["tfnas"]), abs_latency_error_percent=lambda r: 0.2 if r.config["elasticity"] else 30.0
    )["d"]
    assert claim.verdict == "undecided"


def test_elastic_trials_that_miss_their_target_refute_the_claim_though_better_than_the_others():
    claim = claims_of(
        elasticities(["tfnas", "fbnet"]),
        abs_latency_error_percent=lambda r: 3.0 if r.config["elasticity"] else 30.0,
    )["d"]
    assert claim.verdict == "not supported"
    assert "0 of 10" in claim.reason


def test_elastic_trials_of_few_seeds_that_miss_their_target_decide_nothing():
    runs = [run(objective="tfnas", elasticity=True, seed=seed) for seed in range(2)]
    claim = claims_of(runs, abs_latency_error_percent=lambda r: 3.0)["d"]
    assert claim.verdict == "undecided"


def test_targets_that_are_met_anyway_refute_that_they_are_missed_without():
    claim = claims_of(
        elasticities(["tfnas", "fbnet"]),
        abs_latency_error_percent=lambda r: 0.1 if r.config["elasticity"] else 0.8,
    )["d"]
    assert claim.verdict == "not supported"


def whole(latencies: dict[bool, list[float]]) -> list[Run]:
    return [
        run(**fields, target_latency_ms=latency, seed=seed)
        for fields in (BASELINE, METHOD)
        for latency in latencies[fields is METHOD]
        for seed in range(6)
    ]


def test_accuracy_is_compared_with_the_slowest_trial_of_the_method_that_is_as_fast():
    runs = whole({False: [2.0], True: [1.0, 2.05, 3.0]})
    claim = claims_of(
        runs,
        derived_latency_ms=lambda r: r.number("target_latency_ms"),
        test_accuracy=lambda r: (
            0.7 if not r.config["elasticity"] else 0.6 + 0.05 * r.number("target_latency_ms")
        ),
    )["e"]
    assert claim.comparison is not None
    assert claim.comparison.difference.mean == pytest.approx(0.6 + 0.05 * 2.05 - 0.7)
    assert claim.num_seeds == 6


def test_an_accuracy_lower_by_less_than_half_a_point_is_at_least_as_accurate():
    runs = whole({False: [2.0], True: [2.0]})

    def supports(loss: float) -> str:
        return claims_of(
            runs,
            derived_latency_ms=lambda r: 2.0,
            test_accuracy=lambda r: 0.7 - loss * bool(r.config["elasticity"]) + noise(r) / 20,
        )["e"].verdict

    assert (supports(0.0), supports(0.02)) == ("supported", "not supported")


def test_a_method_that_is_slower_throughout_cannot_be_compared():
    claim = claims_of(
        whole({False: [1.0], True: [2.0]}),
        derived_latency_ms=lambda r: r.number("target_latency_ms"),
        test_accuracy=lambda r: 0.7,
    )["e"]
    assert claim.verdict == "undecided"
    assert "6 baseline trials have no trial of the method that is as fast" in claim.reason


def test_accuracies_of_the_supernet_decide_nothing():
    claim = claims_of(
        whole({False: [2.0], True: [2.0]}),
        derived_latency_ms=lambda r: 2.0,
        val_accuracy=lambda r: 0.5 + 0.3 * bool(r.config["elasticity"]) + noise(r),
    )["e"]
    assert claim.verdict == "undecided"
    assert "no derived network was trained" in claim.reason


@pytest.mark.parametrize(
    ("p_value", "interval", "verdict"),
    [
        (0.05, (-0.5, -0.01), "supported"),
        (0.06, (-0.5, 0.1), "undecided"),
        (0.40, (-0.09, 0.1), "not supported"),
        (0.40, (-0.11, 0.1), "undecided"),
    ],
)
def test_the_verdict_at_its_boundaries(p_value: float, interval: tuple[float, float], verdict: str):
    comparison = Comparison(Summary(6, sum(interval) / 2, interval), None, p_value, "a test")
    assert judge(comparison, "less", 0.10)[0] == verdict
