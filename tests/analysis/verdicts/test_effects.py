import itertools
from collections.abc import Iterable
from functools import partialmethod

import numpy as np
import pytest
from statsmodels.regression.mixed_linear_model import MixedLM

from analysis.measures import MEASURES
from analysis.measures.measure import Numbers
from analysis.reading.run import Run
from analysis.tables.mixed_models_table import mixed_models_table
from analysis.tables.result_table import NOTHING, cell_texts
from analysis.verdicts import CLAIMS
from analysis.verdicts.effects import Effect, effects_of
from analysis.verdicts.mixed_model import fit_mixed_model
from analysis.verdicts.verdict import Verdict, judge_claims
from tests.support.hand_made import experiment_of, run

NUM_SEEDS = 12


def noise(r: Run) -> float:
    key = [int(str(r.seed)), len(str(r.config["sampling"])), r.config["depth"] == "sink"]
    return float(np.random.default_rng(key).normal(0, 0.02))


def lock_in(r: Run) -> float:
    """Bi-sampling takes off 0.3 with sinks and 0.1 without; a second path that is not random, 0.05."""
    base = 0.6 if r.config["depth"] == "sink" else 0.8
    gain = {"bi_random": 0.3 if r.config["depth"] == "sink" else 0.1, "bi_gumbel": 0.05}
    return base - gain.get(str(r.config["sampling"]), 0) + noise(r) + 0.01 * int(str(r.seed))


def measured(runs: Iterable[Run]) -> Numbers:
    unknown = dict.fromkeys(MEASURES, float("nan"))
    return {r.run_id: unknown | {"locked_early_share": lock_in(r)} for r in runs}


def judged(samplings: tuple[str, ...] = ("single", "bi_random")) -> tuple[Verdict, list[Effect]]:
    runs = [
        run(sampling=s, depth=d, seed=i)
        for s, d, i in itertools.product(samplings, ("skip", "sink"), range(NUM_SEEDS))
    ]
    numbers = measured(runs)
    experiment = experiment_of(runs)
    verdict = next(one for one in judge_claims(dict(CLAIMS), experiment, numbers) if one.name == "a")
    return verdict, effects_of(verdict, experiment, numbers)


def test_the_effect_is_shown_at_each_level_of_the_other_factor_and_their_difference():
    verdict, (tested, skip, sink, interaction) = judged()
    assert tested.estimate == verdict.estimate
    assert (tested.level, skip.level, sink.level) == ("as claimed: sink", "skip", "sink")
    assert skip.estimate.mean == pytest.approx(-0.1, abs=0.02)
    assert sink.estimate.mean == pytest.approx(-0.3, abs=0.02)
    assert interaction.level == "interaction: sink − skip"
    assert interaction.estimate.mean == pytest.approx(sink.estimate.mean - skip.estimate.mean)
    low, high = interaction.estimate.interval or (0.0, 0.0)
    assert -0.25 < low < -0.2 < high < -0.15


def test_two_paths_and_a_random_path_come_apart():
    _, effects = judged(("single", "bi_random", "bi_gumbel"))
    others = {effect.contrast: effect.estimate.mean for effect in effects if effect.level == "sink"}
    assert others["bi_gumbel − single"] == pytest.approx(-0.05, abs=0.02)
    assert others["bi_random − bi_gumbel"] == pytest.approx(-0.25, abs=0.02)
    assert others["bi_random − single"] == pytest.approx(-0.30, abs=0.02)


def test_the_mixed_model_of_a_balanced_grid_finds_the_mean_difference_of_the_pairs():
    verdict, _ = judged()
    runs = [*verdict.runs]
    fitted = fit_mixed_model(verdict, experiment_of(runs))
    assert fitted is not None
    assert fitted.num_trials == 2 * NUM_SEEDS
    assert fitted.mean == pytest.approx(verdict.estimate.mean, abs=1e-6)
    low, high = fitted.interval or (0.0, 0.0)
    assert low < verdict.estimate.mean < high
    # The standard error of paired differences, for normal errors.
    error = verdict.estimate.spread / np.sqrt(NUM_SEEDS)
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.02)


def test_a_mixed_model_that_did_not_converge_or_fit_has_neither_p_value_nor_interval(
    monkeypatch: pytest.MonkeyPatch,
):
    verdict, _ = judged()
    experiment = experiment_of([*verdict.runs])
    converged = fit_mixed_model(verdict, experiment)
    with monkeypatch.context() as patch:
        patch.setattr(MixedLM, "fit", partialmethod(MixedLM.fit, maxiter=1))
        stopped = fit_mixed_model(verdict, experiment)
        (row,) = cell_texts(mixed_models_table(experiment, measured(verdict.runs)))
    assert converged is not None
    assert stopped is not None
    # Of a balanced grid, the mean does not depend on the variances that are sought.
    assert stopped.mean == pytest.approx(converged.mean, abs=1e-6)
    assert stopped.problem == "did not converge"
    assert (stopped.p_value, stopped.interval) == (None, None)
    assert row[3:] == [f"{stopped.mean:.3f}", NOTHING, str(2 * NUM_SEEDS), "did not converge"]

    def fail(*_: object, **options: object) -> None:
        raise np.linalg.LinAlgError("singular matrix")

    monkeypatch.setattr(MixedLM, "fit", fail)
    unfitted = fit_mixed_model(verdict, experiment)
    assert unfitted is not None
    assert (unfitted.mean, unfitted.p_value, unfitted.interval) == (None, None, None)


def test_a_claim_about_whole_methods_has_no_mixed_model():
    verdict, _ = judged()
    whole = Verdict(**{**vars(verdict), "claim": CLAIMS["e"]})
    assert fit_mixed_model(whole, experiment_of([*verdict.runs])) is None
