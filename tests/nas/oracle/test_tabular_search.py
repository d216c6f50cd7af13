"""Searches on tables; shapes: N networks, V evaluations, R trainings."""

from dataclasses import replace
from math import comb

import numpy as np
import pytest

from nas.oracle.nas_bench_macro import load_nas_bench_macro
from nas.oracle.tabular import TabularOracle
from nas.oracle.tabular_search import TABULAR_METHODS, search_table
from nas.search.predictor import cross_validated_tau
from tests.support.nas_bench_macro import PUBLIC_FILE, needs_public_file, synthetic_content, write_table

METHODS = pytest.mark.parametrize("method", TABULAR_METHODS)


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> TabularOracle:
    path = tmp_path_factory.mktemp("table") / "table.json"
    return load_nas_bench_macro(write_table(path, synthetic_content()))


@METHODS
def test_regret_is_that_of_the_best_of_the_networks_evaluated_so_far(
    method: str, oracle: TabularOracle
) -> None:
    search = search_table(oracle, method, 40, seed=0)
    assert len(set(search.networks_V.tolist())) == len(search.networks_V) == 40
    accuracies = oracle.accuracies_NR.mean(axis=1)
    for num, regret in enumerate(search.regrets_V, start=1):
        assert regret == pytest.approx(accuracies.max() - accuracies[search.networks_V[:num]].max())


@METHODS
def test_a_search_repeats_and_another_seed_evaluates_others(method: str, oracle: TabularOracle) -> None:
    first, again, other = (search_table(oracle, method, 40, seed).networks_V for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert set(first) != set(other)


@METHODS
def test_a_search_knows_only_the_accuracies_of_what_it_evaluated(method: str, oracle: TabularOracle) -> None:
    networks_V = search_table(oracle, method, 40, seed=0).networks_V
    accuracies_NR = np.random.default_rng(0).uniform(size=oracle.accuracies_NR.shape)
    accuracies_NR[networks_V] = oracle.accuracies_NR[networks_V]
    others = replace(oracle, accuracies_NR=accuracies_NR)
    assert np.array_equal(search_table(others, method, 40, seed=0).networks_V, networks_V)


@pytest.mark.parametrize("num_evaluations", [10, 3970])
def test_too_few_or_too_many_evaluations_are_refused(num_evaluations: int, oracle: TabularOracle) -> None:
    with pytest.raises(ValueError, match="num_evaluations"):
        search_table(oracle, "random", num_evaluations, seed=0)


def test_with_one_seed_gp_nas_begins_with_the_networks_of_random_search(oracle: TabularOracle) -> None:
    drawn = search_table(oracle, "random", 40, seed=0)
    predicted = search_table(oracle, "gp_nas_random", 40, seed=0)
    assert np.array_equal(drawn.networks_V[:30], predicted.networks_V[:30])
    assert drawn.tau is None
    assert predicted.regrets_V[-1] < drawn.regrets_V[-1]


def test_random_search_has_the_regret_that_combinatorics_expects(oracle: TabularOracle) -> None:
    regrets = np.sort(oracle.regrets_N)
    num, drawn = len(regrets), 20
    # The network of rank i is the best drawn if it is drawn and all the others come after it.
    chances = [comb(num - rank - 1, drawn - 1) / comb(num, drawn) for rank in range(num - drawn + 1)]
    expected = float(np.dot(chances, regrets[: len(chances)]))
    found = [search_table(oracle, "random", drawn, seed).regrets_V[-1] for seed in range(300)]
    standard_error = np.std(found, ddof=1) / np.sqrt(300)
    assert np.mean(found) == pytest.approx(expected, abs=3 * standard_error)


@needs_public_file
@pytest.mark.parametrize("method", ["gp_nas_random", "gp_nas_mutual_information"])
def test_gp_nas_comes_within_a_twentieth_of_a_point_of_the_best_public_network(method: str) -> None:
    oracle = load_nas_bench_macro(PUBLIC_FILE)
    searches = [search_table(oracle, method, 100, seed) for seed in range(10)]
    assert np.mean([search.tau for search in searches if search.tau is not None]) >= 0.85
    assert 100 * np.mean([search.regrets_V[-1] for search in searches]) <= 0.05


@needs_public_file
def test_nearly_all_intervals_of_tau_from_90_networks_contain_tau_on_all_others() -> None:
    oracle = load_nas_bench_macro(PUBLIC_FILE)
    num_right = 0
    for seed in range(12):
        search = search_table(oracle, "gp_nas_random", 100, seed)
        known = search.networks_V[:90]
        estimate = cross_validated_tau(oracle.codes_NF[known], oracle.mean_accuracies_N[known])
        assert search.tau is not None
        num_right += estimate.low < search.tau < estimate.high
    # Of 95 % intervals, fewer are right in one of 50 such tests.
    assert num_right >= 10
