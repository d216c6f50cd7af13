import numpy as np
import pytest
from statsmodels.stats.power import TTestPower

from analysis.measures.sign_flips import p_value
from analysis.verdicts.power import describe_plan, detectable_effect, plan_seeds, seeds_needed


@pytest.mark.parametrize(("num_seeds", "alpha"), [(8, 0.05), (9, 0.0125), (12, 0.0125), (16, 0.01)])
def test_simulated_power_is_within_ten_points_of_the_plan(num_seeds: int, alpha: float):
    effect = detectable_effect(num_seeds, alpha)
    rng = np.random.default_rng(1)
    samples = rng.normal(effect, 1, (400, num_seeds))
    power = np.mean([p_value(sample_N, "greater") <= alpha for sample_N in samples])
    assert power == pytest.approx(0.8, abs=0.1)


def test_the_plan_for_many_seeds_is_that_of_students_t():
    by_library = TTestPower().solve_power(nobs=30, alpha=0.0125, power=0.8, alternative="larger")
    assert detectable_effect(30, 0.0125) == pytest.approx(by_library, rel=1e-3)
    needed = TTestPower().solve_power(effect_size=0.5, alpha=0.0125, power=0.8, alternative="larger")
    assert seeds_needed(0.1, 0.2, 0.0125) == np.ceil(needed)


def test_more_seeds_detect_smaller_effects_and_those_needed_are_enough():
    effects = [detectable_effect(n, 0.0125) for n in (7, 8, 9, 10, 11, 12, 13, 20, 40)]
    assert effects == sorted(effects, reverse=True)
    # Seven seeds cannot be significant at 0.0125 / 2.
    assert detectable_effect(7, 0.00625) == float("inf")
    for effect in (0.4, 0.8, 1.2, 2.0):
        needed = seeds_needed(effect, 1.0, 0.0125)
        assert needed is not None
        assert detectable_effect(needed, 0.0125) <= effect * 1.001


def test_an_effect_far_below_the_spread_needs_more_seeds_than_anybody_runs():
    assert seeds_needed(0.001, 1.0, 0.05) is None


def test_the_plan_says_what_seeds_detect_with_and_without_a_spread():
    known, unknown = plan_seeds(12, 0.1, 1, 0.2), plan_seeds(12, 0.1, 1, None)
    assert known.detectable == pytest.approx(0.2 * unknown.detectable)
    assert known.num_needed is not None
    assert f"needs {known.num_needed} seeds" in describe_plan(known, 12, 0.1)
    assert "standard deviation" in describe_plan(unknown, 12, 0.1)
    assert "cannot decide" in describe_plan(plan_seeds(5, 0.1, 1, 0.2), 5, 0.1)
