import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from analysis.measures import MEASURES
from analysis.reading.run import Run
from analysis.verdicts import CLAIMS
from analysis.verdicts.claim import Claim
from analysis.verdicts.verdict import Estimate, Verdict, decide, judge_claims
from tests.support.hand_made import experiment_of, run, training

METHOD = {"sampling": "bi_random", "depth": "sink", "elasticity": True}
BASELINE = {"sampling": "single", "depth": "skip", "elasticity": False}

SPREAD = [-0.03, 0.02, 0.0, 0.04, -0.01, -0.02, 0.03, 0.01, -0.04, 0.02, 0.0, -0.02]
"""Small differences between seeds, mean 0."""


def judged(
    runs: list[Run],
    missing: list[Run] = [],  # noqa: B006
    claims: dict[str, Claim] | None = None,
    trainings: list[Run] = [],  # noqa: B006
    **measures: Callable[[Run], float],
) -> dict[str, Verdict]:
    """The verdicts on these numbers."""
    unknown = dict.fromkeys(MEASURES, float("nan"))
    numbers = {r.run_id: unknown | {name: measure(r) for name, measure in measures.items()} for r in runs}
    experiment = replace(experiment_of(runs, trainings), missing=tuple(missing))
    return {one.name: one for one in judge_claims(claims or dict(CLAIMS), experiment, numbers)}


def samplings(num_seeds: int, **fields: Any) -> list[Run]:
    fields = {"depth": "sink"} | fields
    return [run(sampling=s, seed=i, **fields) for s in ("single", "bi_random") for i in range(num_seeds)]


def effect(size: float, spread: float = 1.0) -> Callable[[Run], float]:
    """`size` for bi-sampling, 0 for single, and differences between seeds."""

    def value(r: Run) -> float:
        seed = int(str(r.seed))
        return 0.5 + (size + spread * SPREAD[seed % 12] if r.config["sampling"] != "single" else 0.0)

    return value


def of_differences(differences: list[float]) -> Callable[[Run], float]:
    return lambda r: differences[int(str(r.seed))] if r.config["sampling"] != "single" else 0.0


def seeds(claim: str, num_seeds: int) -> dict[str, Claim]:
    return {claim: CLAIMS[claim].model_copy(update={"num_seeds": num_seeds})}


@pytest.mark.parametrize(
    ("size", "status"),
    [
        (-0.4, "supported"),
        (-0.05, "real but negligible"),
        (-0.001, "not supported"),
        (0.4, "not supported"),
    ],
)
def test_the_verdict_follows_from_the_size_of_a_clear_effect(size: float, status: str):
    verdict = judged(samplings(12), locked_early_share=effect(size, 0.5))["a"]
    assert verdict.status == status
    assert (verdict.estimate.n, verdict.num_pairs) == (12, 12)
    assert verdict.estimate.mean == pytest.approx(size)


def test_differences_far_below_what_matters_are_never_supported_however_certain():
    tiny = of_differences([-0.001 + 0.0001 * each for each in range(-6, 6)])
    assert judged(samplings(12), locked_early_share=tiny)["a"].status == "real but negligible"
    same = judged(samplings(12), locked_early_share=of_differences([-0.001] * 12))["a"]
    assert same.status == "undecided"


def test_thirteen_small_gains_and_one_large_loss_do_not_support_a_mean_gain():
    for num_seeds in (13, 14, 15):
        differences = [-0.2] * (num_seeds - 1) + [2.8]
        verdict = judged(
            samplings(num_seeds), claims=seeds("a", num_seeds), locked_early_share=of_differences(differences)
        )["a"]
        assert verdict.status == "undecided"
        assert verdict.estimate.p_value is not None
        assert verdict.estimate.p_value > 0.3


def test_equal_differences_exclude_only_what_rare_others_could_not_make_up_for():
    zero = judged(samplings(12), locked_early_share=of_differences([0.0] * 12))["a"]
    assert zero.status == "undecided"
    # 2.5 % is the probability of 12 equal ones if 1 - 0.735 of all are others, at most 1 off.
    assert zero.estimate.interval == pytest.approx((-(1 - 0.025 ** (1 / 12)), 1 - 0.025 ** (1 / 12)))
    of_fluctuation = [run(depth=d, seed=i) for d in ("skip", "sink") for i in range(12)]
    unbounded = judged(of_fluctuation, depth_fluctuation=lambda r: 0.3)["b"]
    assert (unbounded.status, unbounded.estimate.interval) == ("undecided", None)
    few = judged(samplings(12), locked_early_share=of_differences([-0.2] * 12))["a"]
    assert few.estimate.p_value == pytest.approx((1 / 1.2) ** 12)


def test_noise_that_hides_an_effect_leaves_the_claim_undecided_and_says_how_many_seeds_are_missing():
    verdict = judged(samplings(12), locked_early_share=effect(-0.08, 10))["a"]
    assert verdict.status == "undecided"
    assert "more seeds, in a new grid, have 80 % power" in verdict.reason


@pytest.mark.parametrize(
    ("mean", "interval", "p_holm", "status"),
    [
        (-0.10, (-0.15, -0.05), 0.05, "supported"),
        (-0.10, (-0.15, -0.05), 0.051, "undecided"),
        (-0.09, (-0.15, -0.05), 0.001, "undecided"),
        (-0.09, (-0.099, -0.05), 0.001, "real but negligible"),
        (-0.09, (-0.099, 0.05), 0.4, "not supported"),
        (-0.09, (-0.10, 0.05), 0.4, "undecided"),
        (0.5, (0.4, 0.6), 1.0, "not supported"),
    ],
)
def test_the_verdict_at_its_boundaries(
    mean: float, interval: tuple[float, float], p_holm: float, status: str
):
    found = Estimate(12, mean, interval, 0.05, p_holm, p_holm)
    assert decide(CLAIMS["a"], found, 1)[0] == status


def test_a_margin_is_met_by_excluding_a_loss_larger_than_it():
    claim = CLAIMS["e"]
    assert decide(claim, Estimate(12, -0.004, (-0.0049, 0.01), 0.01, 0.01, 0.01), 1)[0] == "supported"
    assert decide(claim, Estimate(12, -0.01, (-0.02, -0.006), 0.01, 0.9, 0.9), 1)[0] == "not supported"
    assert decide(claim, Estimate(12, 0.0, (-0.02, 0.02), 0.01, 0.2, 0.2), 1)[0] == "undecided"


def test_there_is_no_test_before_the_registered_seeds_are_there():
    verdict = judged(samplings(8), locked_early_share=effect(-0.4))["a"]
    assert verdict.status == "pending"
    assert "8 of 12 seeds" in verdict.reason
    assert verdict.estimate.mean == pytest.approx(-0.4, abs=0.02)
    assert verdict.estimate.p_value is None
    assert verdict.sensitivity == ()


@pytest.mark.parametrize("status", ["RUNNING", "KILLED", "NOT STARTED"])
def test_a_cell_that_has_not_ended_keeps_its_claims_pending(status: str):
    *runs, last = samplings(12)
    verdict = judged(runs, [replace(last, status=status)], locked_early_share=effect(-0.4))["a"]
    assert verdict.status == "pending"
    assert "11 of 12 seeds" in verdict.reason


def test_seeds_beyond_the_registered_ones_do_not_count():
    few, many = samplings(12), samplings(20)

    def measure(r: Run) -> float:
        return effect(-0.4 if int(str(r.seed)) < 12 else 3.0)(r)

    assert judged(many, locked_early_share=measure)["a"].estimate == (
        judged(few, locked_early_share=measure)["a"].estimate
    )


def test_failed_trials_are_named_and_tried_at_their_worst():
    runs = samplings(12)
    failed = replace(runs.pop(13), status="FAILED", failure="loss is not finite")
    verdict = judged(runs, [failed], locked_early_share=effect(-0.15))["a"]
    assert (verdict.status, verdict.estimate.n, verdict.lost) == ("supported", 11, (failed,))
    assert any("loss is not finite" in line for line in verdict.caveats)
    # At its worst, the failed one would be as bad as the worst of all.
    worst = max(effect(-0.15)(r) for r in runs) - 0.5
    expected = (sum(-0.15 + SPREAD[i] for i in range(12) if i != 1) + worst) / 12
    (line,) = [line for line in verdict.sensitivity if "at their worst" in line]
    assert f"{expected:+.3g}" in line
    assert "1 lost trial" in line


def test_a_trial_without_the_measure_counts_as_lost():
    def measure(r: Run) -> float:
        return float("nan") if r.seed == 3 and r.config["sampling"] == "single" else effect(-0.4)(r)

    verdict = judged(samplings(12), locked_early_share=measure)["a"]
    assert (verdict.status, verdict.estimate.n, len(verdict.lost)) == ("supported", 11, 1)
    assert any("undefined" in line for line in verdict.caveats)


def test_fewer_than_seven_complete_seeds_decide_nothing():
    runs = samplings(12)
    verdict = judged(
        runs, locked_early_share=lambda r: effect(-0.4)(r) if int(str(r.seed)) < 6 else float("nan")
    )["a"]
    assert verdict.status == "undecided"
    assert verdict.estimate.n == 6
    assert "a test needs 7" in verdict.reason


def test_a_failed_trial_whose_pairs_depend_on_latency_loses_its_seed():
    runs = whole({False: [2.0], True: [1.0, 1.9]})
    lost = replace(
        next(r for r in runs if target_ms(r) == 1.9 and r.seed == 4), status="FAILED", failure="boom"
    )
    verdict = judged(
        [r for r in runs if r.run_id != lost.run_id],
        [lost],
        derived_latency_ms=target_ms,
        test_accuracy=lambda r: 0.7 + 0.02 * bool(r.config["elasticity"]) + SPREAD[int(str(r.seed))] / 10,
    )["e"]
    assert (verdict.estimate.n, verdict.lost) == (11, (lost,))
    (line,) = [line for line in verdict.sensitivity if "at their worst" in line]
    assert "n = 12 seeds" in line
    assert verdict.estimate.text not in line


def test_a_network_that_failed_to_train_is_lost_and_keeps_nothing_pending():
    runs = whole({False: [2.0], True: [2.0]})
    failed = replace(training("x", runs[0]), status="FAILED")
    unknown = dict.fromkeys(MEASURES, float("nan"))
    numbers = {
        r.run_id: unknown
        | {"derived_latency_ms": 2.0, "test_accuracy": float("nan") if r is runs[0] else 0.7}
        for r in runs
    }
    experiment = replace(experiment_of(runs), failed_training=(failed,))
    verdict = next(one for one in judge_claims(dict(CLAIMS), experiment, numbers) if one.name == "e")
    assert verdict.status != "pending"
    assert (verdict.estimate.n, verdict.lost) == (11, (runs[0],))
    experiment = experiment_of(runs)
    verdict = next(one for one in judge_claims(dict(CLAIMS), experiment, numbers) if one.name == "e")
    assert verdict.status == "pending"


def test_shares_that_are_not_exact_in_binary_reach_the_effect_that_they_are():
    of_tenths = [0.2 - 0.3, 0.1 - 0.3, 0.3 - 0.3] * 4
    verdict = judged(samplings(12), locked_early_share=of_differences(of_tenths))["a"]
    assert verdict.status == "supported"


def test_methods_that_differ_in_another_factor_are_not_compared():
    runs = [
        run(**fields, arch_lr=lr, target_latency_ms=2.0, seed=seed)
        for fields, lr in ((BASELINE, 0.01), (METHOD, 0.03))
        for seed in range(12)
    ]
    assert judged(runs, derived_latency_ms=target_ms)["e"].status == "not asked"


def test_a_seed_counts_only_with_all_its_pairs():
    runs = [*samplings(12, target_latency_ms=1.0), *samplings(12, target_latency_ms=2.0)]
    failed = replace(runs.pop(), status="FAILED")
    verdict = judged(runs, [failed], locked_early_share=effect(-0.4))["a"]
    assert (verdict.estimate.n, verdict.num_pairs) == (11, 22)


def test_a_grid_without_the_factor_does_not_ask_the_claim():
    verdicts = judged([run(sampling="bi_random", depth="sink", seed=i) for i in range(12)])
    assert {one.status for one in verdicts.values()} == {"not asked"}
    assert {(one.is_registered, one.registration) for one in verdicts.values()} == {(False, "")}
    other = [run(sampling=s, depth="sink", seed=i) for s in ("single", "bi_min") for i in range(12)]
    assert judged(other, locked_early_share=lambda r: 0.5)["a"].status == "not asked"


def test_collapse_is_compared_within_the_sink_space_alone():
    runs = [*samplings(12), *samplings(12, depth="skip")]

    def measure(r: Run) -> float:
        return effect(-0.4 if r.config["depth"] == "sink" else 0.8)(r)

    verdict = judged(runs, locked_early_share=measure, depth_fluctuation=lambda r: 0.0)["a"]
    assert verdict.estimate.mean == pytest.approx(-0.4)
    assert verdict.num_pairs == 12


def test_runs_on_other_images_are_no_pairs():
    birds = [run(sampling="single", depth="sink", images="birds", seed=i) for i in range(12)]
    flowers = [run(sampling="bi_random", depth="sink", images="flowers", seed=i) for i in range(12)]
    assert judged([*birds, *flowers], locked_early_share=effect(-0.4))["a"].status == "not asked"


def test_p_values_are_corrected_for_all_claims_that_the_grid_asks_tested_or_not():
    runs = [
        run(sampling=s, depth=d, seed=i)
        for s, d, i in itertools.product(("single", "bi_random"), ("skip", "sink"), range(12))
    ]
    first = judged(runs, locked_early_share=effect(-0.4), depth_fluctuation=lambda r: 0.5)["a"]
    assert first.estimate.p_value == pytest.approx(1 / 4096)
    assert first.estimate.p_holm == pytest.approx(2 / 4096)
    alone = judged(samplings(12), locked_early_share=effect(-0.4))["a"]
    assert alone.estimate.p_holm == pytest.approx(1 / 4096)


def elasticities(objectives: list[str]) -> list[Run]:
    cells = itertools.product(objectives, [False, True], range(12))
    return [run(objective=o, latency_weight=0.1, elasticity=e, seed=i) for o, e, i in cells]


@pytest.mark.parametrize(
    ("missed", "status"),
    [
        (lambda r: float(not r.config["elasticity"]), "supported"),
        # Only one of two objectives profits from elasticity-scaling, and by less than half in the mean.
        (
            lambda r: (
                1.0
                if r.config["objective"] == "fbnet"
                else 0.6 - (0.5 + SPREAD[int(str(r.seed))]) * bool(r.config["elasticity"])
            ),
            "real but negligible",
        ),
        (lambda r: 1.0, "not supported"),
    ],
)
def test_targets_must_be_missed_less_often_in_the_mean_over_objectives(
    missed: Callable[[Run], float], status: str
):
    verdict = judged(elasticities(["tfnas", "fbnet"]), target_missed=missed)["d"]
    assert verdict.status == status
    assert (verdict.estimate.n, verdict.num_pairs) == (12, 24)


@pytest.mark.parametrize(
    ("missed_by_rival", "rival"),
    [(1.0, "supported"), (0.0, "not supported")],
)
def test_the_learned_multiplier_has_a_verdict_of_its_own_beside_that_over_all_objectives(
    missed_by_rival: float, rival: str
):
    def missed(r: Run) -> float:
        alone = missed_by_rival if r.config["objective"] == "lagrangian" else 1.0
        return 0.0 if r.config["elasticity"] else alone

    verdicts = judged(elasticities(["tfnas", "fbnet", "lagrangian"]), target_missed=missed)
    assert (verdicts["d"].status, verdicts["d"].num_pairs) == ("supported", 36)
    assert verdicts["d"].estimate.mean == pytest.approx(-(2 + missed_by_rival) / 3)
    assert (verdicts["d2"].status, verdicts["d2"].num_pairs) == (rival, 12)
    assert verdicts["d2"].estimate.mean == pytest.approx(-missed_by_rival)


def test_a_grid_without_the_learned_multiplier_does_not_ask_about_it():
    verdicts = judged(elasticities(["tfnas", "fbnet"]), target_missed=lambda r: 0.0)
    assert verdicts["d2"].status == "not asked"


def whole(latencies: dict[bool, list[float]]) -> list[Run]:
    return [
        run(**fields, target_latency_ms=latency, seed=seed)
        for fields in (BASELINE, METHOD)
        for latency in latencies[fields is METHOD]
        for seed in range(12)
    ]


def target_ms(r: Run) -> float:
    return r.number("target_latency_ms")


def test_accuracy_is_compared_with_the_slowest_trial_of_the_method_that_is_as_fast():
    verdict = judged(
        whole({False: [2.0], True: [1.0, 1.99, 2.01]}),
        derived_latency_ms=target_ms,
        test_accuracy=lambda r: (
            0.7 if not r.config["elasticity"] else 0.6 + 0.05 * target_ms(r) + 0.001 * int(str(r.seed))
        ),
    )["e"]
    assert verdict.estimate.mean == pytest.approx(0.6 + 0.05 * 1.99 - 0.7 + 0.001 * 5.5)
    assert verdict.num_pairs == 12


def test_the_partner_is_chosen_before_looking_at_whether_it_was_trained():
    verdict = judged(
        whole({False: [2.0], True: [1.0, 1.9]}),
        derived_latency_ms=target_ms,
        test_accuracy=lambda r: float("nan") if target_ms(r) == 1.9 else 0.7,
    )["e"]
    assert verdict.status == "pending"
    assert "0 of 12 seeds" in verdict.reason


def test_networks_that_are_not_trained_keep_the_claim_about_accuracy_pending():
    verdict = judged(
        whole({False: [2.0], True: [2.0]}), derived_latency_ms=target_ms, val_accuracy=lambda r: 0.5
    )["e"]
    assert verdict.status == "pending"


def test_a_method_that_is_slower_throughout_cannot_be_compared():
    verdict = judged(
        whole({False: [1.0], True: [2.0]}), derived_latency_ms=target_ms, test_accuracy=lambda r: 0.7
    )["e"]
    assert verdict.status == "undecided"
    assert any("no treated trial is as fast" in line for line in verdict.caveats)


def test_an_accuracy_lower_by_less_than_half_a_point_is_at_least_as_accurate():
    def status(loss: float) -> str:
        return judged(
            whole({False: [2.0], True: [2.0]}),
            derived_latency_ms=target_ms,
            test_accuracy=lambda r: (
                0.7 - (loss + SPREAD[int(str(r.seed))] / 20 if r.config["elasticity"] else 0)
            ),
        )["e"].status

    assert (status(0.0), status(0.02)) == ("supported", "not supported")


def test_accuracies_that_are_selected_on_test_images_are_said_to_be():
    runs = whole({False: [2.0], True: [2.0]})
    verdict = judged(
        runs,
        trainings=[training("x", runs[0], val_fraction=0)],
        derived_latency_ms=target_ms,
        test_accuracy=lambda r: 0.7,
    )["e"]
    assert "test accuracies are selected on test images" in verdict.caveats


def test_a_second_definition_and_what_stands_beside_are_shown():
    verdict = judged(
        samplings(12),
        locked_early_share=effect(-0.4),
        locked_share_of_epochs=effect(-0.2),
        train_gini=lambda r: 0.25 if r.config["sampling"] == "single" else 0.5,
    )["a"]
    assert any("-0.2" in line and "another definition" in line for line in verdict.sensitivity)
    assert any("0.5 (bi_random), 0.25 (single)" in line for line in verdict.beside)


def test_a_claim_of_a_users_file_needs_no_code():
    own = CLAIMS["a"].model_copy(
        update={
            "baseline": {"arch_lr": 0.01},
            "treated": {"arch_lr": 0.1},
            "within": {},
            "measure": "val_accuracy",
            "direction": "greater",
            "smallest_effect": 0.02,
            "second_measure": None,
            "beside": [],
        }
    )
    runs = [run(arch_lr=lr, seed=i) for lr in (0.01, 0.1) for i in range(12)]

    def accuracy(r: Run) -> float:
        return 0.5 + (0.1 + SPREAD[int(str(r.seed))] if r.config["arch_lr"] == 0.1 else 0.0)

    verdicts = judged(runs, claims={**CLAIMS, "mine": own}, val_accuracy=accuracy)
    assert verdicts["mine"].status == "supported"


def test_the_estimate_is_of_treated_minus_baseline():
    values = np.array([of_differences([0.1, 0.2, 0.3])(r) for r in samplings(3)])
    assert values.tolist() == [0, 0, 0, 0.1, 0.2, 0.3]
    verdict = judged(samplings(3), locked_early_share=of_differences([0.1, 0.2, 0.3]))["a"]
    assert verdict.estimate.mean == pytest.approx(0.2)


METHODS = {"f": "tf_nas", "g": "gp_nas"}


def methods(**fields: Any) -> list[Run]:
    fields = {"elasticity": True, "target_latency_ms": 2.0} | fields
    return [run(method=m, seed=i, **fields) for m in ("random", *METHODS.values()) for i in range(12)]


@pytest.mark.parametrize("claim", METHODS)
@pytest.mark.parametrize(
    ("gain", "status"), [(0.0, "supported"), (-0.004, "undecided"), (-0.02, "not supported")]
)
def test_a_method_is_as_accurate_as_random_search_if_it_loses_less_than_half_a_point(
    claim: str, gain: float, status: str
):
    def accuracy(r: Run) -> float:
        return 0.8 + (gain + 0.1 * SPREAD[int(str(r.seed))] if r.config["method"] == METHODS[claim] else 0)

    verdict = judged(methods(), test_accuracy=accuracy)[claim]
    assert (verdict.status, verdict.estimate.n) == (status, 12)


def test_methods_wait_for_their_networks_to_be_trained():
    verdicts = judged(methods())
    assert verdicts["f"].status == verdicts["g"].status == "pending"


def test_methods_that_need_not_meet_their_targets_are_not_compared():
    verdicts = judged(methods(elasticity=False), test_accuracy=lambda r: 0.8)
    assert verdicts["f"].status == verdicts["g"].status == "not asked"
