from dataclasses import replace

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
) -> Verdict:
    """Claim (a) on these runs; the last registration is that of the grid."""
    values = {
        r.run_id: 0.5 - 0.3 * (r.config["sampling"] != "single") + 0.01 * hash(r.run_id) % 0.02 for r in runs
    }
    unknown = dict.fromkeys(MEASURES, float("nan"))
    experiment = replace(
        experiment_of(runs),
        registered=registrations[-1] if registrations else None,
        registrations=tuple(registrations),
        left_out=tuple(left_out),
    )
    numbers = {key: unknown | {"locked_early_share": value} for key, value in values.items()}
    return next(one for one in judge(experiment, numbers) if one.name == "a")


def test_a_claim_of_the_launch_that_started_before_the_first_trial_is_registered():
    runs = runs_of(range(12))
    verdict = judged(runs, [registration(runs, PAPER, time_ms=99)])
    assert verdict.is_registered
    assert CLAIMS["a"].sha256[:8] in verdict.registration


def test_a_claim_that_no_launch_registered_is_exploratory():
    assert not judged(runs_of(range(12)), []).is_registered
    runs = runs_of(range(12))
    assert not judged(runs, [registration(runs, {}, time_ms=99)]).is_registered


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


def test_seeds_that_are_appended_later_leave_the_claim_registered():
    first, more = runs_of(range(12)), runs_of(range(20))
    verdict = judged(more, [registration(first, PAPER, time_ms=99), registration(more, PAPER, time_ms=500)])
    assert verdict.is_registered
    assert verdict.estimate.n == 12


@pytest.mark.parametrize("dropped", [0, 7])
def test_a_grid_whose_seeds_were_exchanged_after_a_look_is_exploratory(dropped: int):
    first = runs_of(range(12))
    seeds = [seed for seed in range(13) if seed != dropped]
    kept = [r for r in runs_of(range(13)) if r.seed in seeds]
    out = [r for r in first if r.seed == dropped]
    registrations = [registration(first, PAPER, time_ms=99), registration(kept, PAPER, time_ms=500)]
    verdict = judged(kept, registrations, left_out=out)
    assert not verdict.is_registered
    assert "the grid was edited" in verdict.registration


def test_new_cells_are_a_new_experiment_that_the_old_registration_does_not_taint():
    old = [replace(r, config={**r.config, "num_epochs": 8}) for r in runs_of(range(12))]
    old = [replace(r, run_id="old" + r.run_id, tags={"tfnas.cell": "old" + r.run_id}) for r in old]
    new = runs_of(range(12), start_time_ms=600)
    verdict = judged(
        new, [registration(old, PAPER, time_ms=99), registration(new, PAPER, time_ms=500)], left_out=old
    )
    assert verdict.is_registered
