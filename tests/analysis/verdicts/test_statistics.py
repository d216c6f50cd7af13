import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.measures.summary import summarize
from analysis.verdicts.statistics import Pairs, average_by_seed, compare, holm, pair_runs
from tests.support.hand_made import run


def pairs_of(differences: list[float]) -> Pairs:
    values = np.array(differences)
    return Pairs(tuple(range(len(values))), values, np.zeros(len(values)), len(values), ())


@pytest.mark.parametrize("seed", range(3))
def test_the_permutation_test_equals_an_enumeration_of_all_sign_flips(seed: int):
    differences = np.random.default_rng(seed).normal(-0.4, 1, 7)
    means = [np.mean(differences * signs) for signs in itertools.product([1, -1], repeat=7)]
    by_hand = np.mean(np.array(means) <= differences.mean() + 1e-12)
    comparison = compare(pairs_of(differences.tolist()), "less")
    assert comparison.p_value == pytest.approx(by_hand)
    assert comparison.test == "exact paired permutation test"


def test_five_pairs_that_all_agree_give_the_smallest_p_value_of_five_pairs():
    assert compare(pairs_of([-1, -2, -3, -4, -5]), "less").p_value == pytest.approx(1 / 32)
    assert compare(pairs_of([-1, -2, -3, -4, -5]), "greater").p_value == pytest.approx(1)


@pytest.mark.parametrize("n", [1, 4])
def test_fewer_than_five_pairs_are_not_tested_and_it_says_so(n: int):
    comparison = compare(pairs_of([-1.0, -2.0, -1.5, -1.2][:n]), "less")
    assert comparison.p_value is None
    assert comparison.effect_size is None
    assert comparison.difference.interval is None
    assert comparison.test == f"no test: n = {n}, at least 5 seeds needed"


def test_many_pairs_are_tested_by_wilcoxon_as_its_exact_distribution_says():
    differences = np.random.default_rng(0).normal(-0.3, 1, 20)
    ranks = np.abs(differences).argsort().argsort() + 1
    statistic = int(ranks[differences > 0].sum())
    # Number of subsets of the ranks 1..20 with each sum, by dynamic programming.
    counts = np.zeros(211)
    counts[0] = 1
    for rank in range(1, 21):
        counts[rank:] += counts[: 211 - rank].copy()
    comparison = compare(pairs_of(differences.tolist()), "less")
    assert comparison.test == "Wilcoxon signed-rank test"
    assert comparison.p_value == pytest.approx(counts[: statistic + 1].sum() / 2**20)


def test_a_margin_shifts_the_null_hypothesis():
    differences = [-0.004, -0.002, 0.001, -0.003, 0.0, -0.001]
    assert compare(pairs_of(differences), "greater").p_value > 0.5
    assert compare(pairs_of(differences), "greater", margin=-0.005).p_value == pytest.approx(1 / 64)


def test_the_effect_size_is_the_mean_in_standard_deviations_with_hedges_correction():
    differences = [1.0, 2.0, 3.0, 4.0, 5.0]
    assert compare(pairs_of(differences), "greater").effect_size == pytest.approx(
        3 / np.sqrt(2.5) * (1 - 3 / (4 * 4 - 1))
    )
    assert compare(pairs_of([0.1] * 6), "greater").effect_size is None


def test_the_interval_covers_the_mean_of_the_population_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(100):
        low, high = summarize(rng.normal(2, 1, 15)).interval or (0, 0)
        hits += low <= 2 <= high
    assert 85 <= hits <= 99


def test_values_that_are_not_known_do_not_count():
    summary = summarize([1.0, np.nan, 3.0])
    assert (summary.n, summary.mean, summary.interval) == (2, 2.0, None)
    assert summarize([np.nan]).n == 0
    assert summarize([2.0] * 5).interval == (2.0, 2.0)


def test_pairs_agree_in_all_other_factors_and_each_seed_counts_once():
    runs = [
        run(sampling=sampling, target_latency_ms=target, seed=seed)
        for sampling, target, seed in itertools.product(["single", "bi_random"], [1.0, 2.0], [0, 1])
    ]
    runs.append(run(sampling="bi_random", target_latency_ms=3.0, seed=0))  # has no partner
    pairs = pair_runs(runs, ["sampling"], ["single"], ["bi_random"], ["target_latency_ms"])
    assert len(pairs) == 4
    for treated, baseline in pairs:
        assert (treated.config["sampling"], baseline.config["sampling"]) == ("bi_random", "single")
        assert treated.seed == baseline.seed
        assert treated.config["target_latency_ms"] == baseline.config["target_latency_ms"]
    averaged = average_by_seed(pairs, lambda r: r.number("target_latency_ms") * (1 + (r.seed == 1)))
    assert averaged.seeds == (0, 1)
    assert averaged.num_cells == 4
    assert averaged.treated_N.tolist() == [1.5, 3.0]


def test_a_pair_without_the_measure_is_left_out():
    pairs = [(run("a", seed=seed), run("b", seed=seed)) for seed in range(3)]
    averaged = average_by_seed(pairs, lambda r: np.nan if r.name == "a" and r.seed == 1 else 1.0)
    assert averaged.seeds == (0, 2)


@given(st.lists(st.floats(0, 1) | st.sampled_from([0.0, 0.01, 0.02, 0.05, 1.0]), max_size=7))
def test_holm_is_the_closed_test_that_takes_bonferroni_for_every_subset(p_values: list[float]):
    places = range(len(p_values))
    subsets = [set(s) for size in places for s in itertools.combinations(places, size + 1)]
    bonferroni = [min(1, len(subset) * min(p_values[i] for i in subset)) for subset in subsets]
    expected = [max(p for subset, p in zip(subsets, bonferroni, strict=True) if i in subset) for i in places]
    assert holm(p_values) == pytest.approx(expected)
