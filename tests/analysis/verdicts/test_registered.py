from dataclasses import replace
from typing import Any

import pytest

from analysis.measures import MEASURES
from analysis.reading.registration import Registration
from analysis.reading.run import Run
from analysis.verdicts import CLAIMS, judge
from analysis.verdicts.verdict import Verdict
from tests.support.hand_made import experiment_of, registration, run

PAPER = {name: claim.record() for name, claim in CLAIMS.items()}
EDITED = PAPER | {"a": CLAIMS["a"].model_copy(update={"smallest_effect": 0.01}).record()}


def runs_of(seeds: range, start_time_ms: int = 100) -> list[Run]:
    return [
        replace(run(sampling=s, depth="sink", seed=i), start_time_ms=start_time_ms + i)
        for s in ("single", "bi_random")
        for i in seeds
    ]


def judged(
    runs: list[Run],
    registrations: list[Registration],
    left_out: list[Run] = [],  # noqa: B006
    **fields: Any,
) -> Verdict:
    """Claim (a) on these runs; the last registration is that of the grid."""
    values = {
        r.run_id: 0.5 - 0.3 * (r.config["sampling"] != "single") + 0.001 * int(str(r.seed)) for r in runs
    }
    unknown = dict.fromkeys(MEASURES, float("nan"))
    experiment = replace(experiment_of(runs, registrations=registrations), left_out=tuple(left_out), **fields)
    numbers = {key: unknown | {"locked_early_share": value} for key, value in values.items()}
    return next(one for one in judge(experiment, numbers) if one.name == "a")


def test_a_claim_of_the_launch_that_started_before_the_first_trial_is_registered():
    runs = runs_of(range(12))
    verdict = judged(runs, [registration(runs, PAPER, time_ms=99)])
    assert verdict.is_registered
    assert CLAIMS["a"].sha256[:8] in verdict.registration


def test_without_a_registration_the_claims_of_the_paper_are_exploratory():
    verdict = judged(runs_of(range(12)), [])
    assert not verdict.is_registered
    assert verdict.claim == CLAIMS["a"]


def test_claims_that_a_file_dropped_are_not_judged():
    runs = runs_of(range(12))
    unknown = {r.run_id: dict.fromkeys(MEASURES, 0.5) for r in runs}
    only_b = registration(runs, {"b": PAPER["b"]}, time_ms=99)
    assert [one.name for one in judge(experiment_of(runs, registrations=[only_b]), unknown)] == ["b"]
    none = registration(runs, {}, time_ms=99)
    assert judge(experiment_of(runs, registrations=[none]), unknown) == []
    everything = replace(experiment_of(runs, registrations=[only_b]), registered=None)
    assert [one.name for one in judge(everything, unknown)] == ["b"]


def test_a_claim_registered_after_the_first_trial_is_exploratory():
    runs = runs_of(range(12))
    verdict = judged(runs, [registration(runs, {}, time_ms=99), registration(runs, PAPER, time_ms=101)])
    assert not verdict.is_registered
    assert "after the first trial" in verdict.registration


def test_an_edited_claim_is_exploratory_and_is_the_one_that_is_judged():
    runs = runs_of(range(12))
    verdict = judged(runs, [registration(runs, PAPER, time_ms=99), registration(runs, EDITED, time_ms=200)])
    assert not verdict.is_registered
    assert verdict.claim.smallest_effect == 0.01


def test_a_test_that_was_corrected_later_makes_the_claims_exploratory_whose_p_value_it_changes():
    def judge_shares(difference: float) -> Verdict:
        runs = runs_of(range(12))
        shares = {r.run_id: 0.9 + difference * (r.config["sampling"] != "single") for r in runs[:20]}
        shares |= {r.run_id: 0.9 for r in runs[20:]}
        numbers = {
            key: dict.fromkeys(MEASURES, float("nan")) | {"locked_early_share": shares[key]} for key in shares
        }
        experiment = experiment_of(runs, registrations=[registration(runs, before, time_ms=99)])
        return next(one for one in judge(experiment, numbers) if one.name == "a")

    before = {name: {key: claim[key] for key in claim.keys() - {"test"}} for name, claim in PAPER.items()}
    assert judge_shares(-0.3).is_registered
    corrected = judge_shares(-1.0)
    assert not corrected.is_registered
    assert "test" in corrected.registration


def test_seeds_that_are_appended_later_leave_the_claim_registered():
    first, more = runs_of(range(12)), runs_of(range(20))
    verdict = judged(more, [registration(first, PAPER, time_ms=99), registration(more, PAPER, time_ms=500)])
    assert verdict.is_registered
    assert verdict.estimate.n == 12


@pytest.mark.parametrize("order", [range(20), range(19, -1, -1)])
def test_seeds_that_are_reordered_or_dropped_after_a_look_make_the_claim_exploratory(order: range):
    runs = runs_of(range(20))
    first = registration([r for seed in order for r in runs if r.seed == seed], PAPER, time_ms=99)
    reordered = registration(
        [r for seed in [*order[8:], *order[:8]] for r in runs if r.seed == seed], PAPER, time_ms=500
    )
    assert judged(runs, [first]).is_registered
    assert not judged(runs, [first, reordered]).is_registered
    kept = [r for r in runs if r.seed in order[8:]]
    dropped = [r for r in runs if r.seed in order[:8]]
    assert not judged(kept, [first, registration(kept, PAPER, time_ms=500)], left_out=dropped).is_registered


def test_a_selection_of_runs_is_exploratory():
    runs = runs_of(range(20))
    assert not judged(
        [r for r in runs if int(str(r.seed)) >= 8], [registration(runs, PAPER, time_ms=99)]
    ).is_registered


def test_a_level_that_is_dropped_before_it_starts_makes_the_claim_exploratory():
    runs = runs_of(range(12))
    planned = [
        replace(r, config={**r.config, "target_latency_ms": 2.0}, tags={"tfnas.cell": "2" + r.run_id})
        for r in runs
    ]
    both = registration([*runs, *planned], PAPER, time_ms=99)
    assert not judged(runs, [both, registration(runs, PAPER, time_ms=500)]).is_registered


def test_of_several_variants_the_one_in_force_at_the_first_trial_counts():
    runs = runs_of(range(12))
    first, other = registration(runs, PAPER, time_ms=97), registration(runs, EDITED, time_ms=98)
    back = replace(first, last_time_ms=500)
    verdict = judged(runs, [back, other], registered=back)
    assert verdict.claim == CLAIMS["a"]
    assert not verdict.is_registered
    assert "edited" in verdict.registration


def test_claims_that_are_dropped_after_a_look_still_count_for_holm():
    runs = [
        replace(run(sampling=s, depth=d, seed=i), start_time_ms=100)
        for s in ("single", "bi_random")
        for d in ("skip", "sink")
        for i in range(12)
    ]
    both = registration(runs, {name: PAPER[name] for name in "ab"}, time_ms=99)
    alone = registration(runs, {"a": PAPER["a"]}, time_ms=500)
    before, after = judged(runs, [both]), judged(runs, [both, alone])
    assert before.estimate.p_holm == after.estimate.p_holm == 2 * (before.estimate.p_value or 0)


def test_an_earlier_grid_of_other_seeds_is_named():
    old, new = runs_of(range(12)), runs_of(range(20, 32), start_time_ms=600)
    verdict = judged(
        new, [registration(old, PAPER, time_ms=99), registration(new, PAPER, time_ms=500)], left_out=old
    )
    assert any("asked before of 1 other grid with 24 finished trials" in line for line in verdict.caveats)


@pytest.mark.parametrize("dropped", [0, 7])
def test_a_grid_whose_seeds_were_exchanged_after_a_look_is_exploratory(dropped: int):
    first = runs_of(range(12))
    seeds = [seed for seed in range(13) if seed != dropped]
    kept = [r for r in runs_of(range(13)) if r.seed in seeds]
    out = [r for r in first if r.seed == dropped]
    registrations = [registration(first, PAPER, time_ms=99), registration(kept, PAPER, time_ms=500)]
    verdict = judged(kept, registrations, left_out=out)
    assert not verdict.is_registered
    assert "other trials" in verdict.registration


def test_new_cells_are_a_new_experiment_that_the_old_registration_does_not_taint():
    old = [replace(r, config={**r.config, "num_epochs": 8}) for r in runs_of(range(12))]
    old = [replace(r, run_id="old" + r.run_id, tags={"tfnas.cell": "old" + r.run_id}) for r in old]
    new = runs_of(range(12), start_time_ms=600)
    verdict = judged(
        new, [registration(old, PAPER, time_ms=99), registration(new, PAPER, time_ms=500)], left_out=old
    )
    assert verdict.is_registered


def test_an_earlier_claim_that_this_version_cannot_read_counts_for_holm_and_stops_nothing():
    runs = runs_of(range(12))
    gone = PAPER["a"] | {"measure": "of_a_plugin_that_is_gone"}
    before = registration(runs, {"a": PAPER["a"], "x": gone}, time_ms=99)
    verdict = judged(runs, [before, registration(runs, {"a": PAPER["a"]}, time_ms=500)])
    assert verdict.is_registered
    assert verdict.estimate.p_holm == 2 * (verdict.estimate.p_value or 0)
