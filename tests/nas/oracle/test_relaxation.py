"""The exact relaxation against enumeration; shapes: E encodings, L layers, O operators."""

from itertools import product

import numpy as np
import pytest
import torch

from nas.oracle.nas_bench_macro import load_nas_bench_macro
from nas.oracle.relaxation import climb_relaxation, expected_accuracy
from nas.oracle.tabular import TabularOracle
from tests.support.nas_bench_macro import PUBLIC_FILE, STAGES, needs_public_file, network_of

ENCODINGS = list(product(range(3), repeat=4))


def table_of(accuracies_E: list[float], encodings: list[tuple[int, ...]]) -> TabularOracle:
    """Each encoding is a network of its own, in the order given."""
    choices_EL = np.array(encodings)
    return TabularOracle(
        name="made up",
        names_N=tuple("".join(map(str, encoding)) for encoding in encodings),
        codes_NF=choices_EL.astype(float),
        accuracies_NR=np.array(accuracies_E)[:, None],
        choices_EL=choices_EL,
        network_E=np.arange(len(encodings)),
    )


def test_the_expectation_is_the_sum_over_all_encodings() -> None:
    rng = np.random.default_rng(0)
    alpha_LO, accuracies_E = rng.normal(size=(4, 3)), rng.uniform(size=81)
    probs_LO = np.exp(alpha_LO) / np.exp(alpha_LO).sum(axis=1, keepdims=True)
    expected = sum(
        accuracy * np.prod([probs_LO[layer, op] for layer, op in enumerate(encoding)])
        for encoding, accuracy in zip(ENCODINGS, accuracies_E, strict=True)
    )
    found = expected_accuracy(torch.from_numpy(alpha_LO), torch.from_numpy(accuracies_E))
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_the_gradient_is_that_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    alpha_LO = torch.randn(4, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    accuracies_E = torch.rand(81, dtype=torch.float64, generator=generator)
    torch.autograd.gradcheck(lambda alpha: expected_accuracy(alpha, accuracies_E), (alpha_LO,))


def test_where_layers_add_up_the_best_network_is_found_in_whatever_order_they_are_listed() -> None:
    rng = np.random.default_rng(1)
    gains_LO = rng.uniform(0, 0.2, (4, 3))
    encodings = [ENCODINGS[index] for index in rng.permutation(81)]
    oracle = table_of([sum(gains_LO[range(4), encoding]) for encoding in encodings], encodings)
    climb = climb_relaxation(oracle)
    assert encodings[climb.networks_S[-1]] == tuple(gains_LO.argmax(axis=1))
    assert climb.regrets_S[-1] == 0
    assert climb.expected_accuracies_S[0] == pytest.approx(gains_LO.mean(axis=1).sum())
    assert np.all(np.diff(climb.expected_accuracies_S) > 0)


@needs_public_file
def test_on_the_public_table_it_ends_where_no_change_of_one_layer_gains_anything() -> None:
    oracle = load_nas_bench_macro(PUBLIC_FILE)
    climb = climb_relaxation(oracle)
    accuracies = dict(zip(oracle.names_N, oracle.mean_accuracies_N, strict=True))
    last = oracle.names_N[climb.networks_S[-1]]
    for layer, digit in product(range(STAGES[-1].stop), "012"):
        changed = last[:layer] + digit + last[layer + 1 :]
        assert accuracies[network_of(changed)] <= accuracies[last]
    assert 0 < 100 * climb.regrets_S[-1] < 0.05
