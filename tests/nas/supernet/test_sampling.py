"""Paths are what alpha says, and the second path is never the first."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor
from torch.nn import functional as F

from nas.config import SearchConfig
from nas.supernet.sampling import (
    SAMPLINGS,
    gumbel_softmax,
    sample_first_path,
    sample_gumbel,
    temperature_at,
)

NUM_DRAWS = 20_000
SECOND_PATHS = tuple(name for name in SAMPLINGS if name != "single")
ALPHA_O = torch.tensor([0.30, 0.02, 0.08, 0.15, 0.05, 0.20, 0.12, 0.08])
ALPHA_WITHOUT_IDENTITY_O = torch.cat([ALPHA_O, torch.zeros(1)])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def repeated_log_alpha(alpha_O: Tensor, num_layers: int = NUM_DRAWS) -> Tensor:
    """Many layers with one alpha: as many independent draws in one call."""
    return alpha_O.log().repeat(num_layers, 1)


def assert_distributed(draws: Tensor, probabilities_O: Tensor) -> None:
    """Chi-squared; a correct sampler fails once in ten thousand seeds, and the seed is fixed."""
    counts = torch.bincount(draws, minlength=len(probabilities_O)).numpy()
    possible = probabilities_O.numpy() > 0
    assert counts[~possible].sum() == 0
    expected = probabilities_O.double().numpy()[possible]
    result = stats.chisquare(counts[possible], expected / expected.sum() * len(draws))
    assert result.pvalue > 1e-4


def test_gumbel_noise_has_the_standard_gumbel_distribution() -> None:
    noise = sample_gumbel((NUM_DRAWS,), generator())
    assert stats.kstest(noise.double().numpy(), stats.gumbel_r.cdf).pvalue > 1e-4


@pytest.mark.parametrize("alpha_O", [ALPHA_O, torch.ones(8) / 8, ALPHA_WITHOUT_IDENTITY_O])
def test_first_path_is_distributed_as_alpha(alpha_O: Tensor) -> None:
    assert_distributed(sample_first_path(repeated_log_alpha(alpha_O), generator()), alpha_O)


@pytest.mark.parametrize("temperature", [5.0, 0.2])
def test_argmax_of_gumbel_weights_is_distributed_as_alpha_at_every_temperature(temperature: float) -> None:
    weights_LO = gumbel_softmax(repeated_log_alpha(ALPHA_O), temperature, generator())
    assert_distributed(weights_LO.argmax(-1), ALPHA_O)


def test_layers_of_a_path_are_drawn_independently() -> None:
    draws = sample_first_path(repeated_log_alpha(ALPHA_O), generator()).view(-1, 2)
    joint = torch.outer(ALPHA_O, ALPHA_O).flatten()
    assert_distributed(draws[:, 0] * len(ALPHA_O) + draws[:, 1], joint)


@pytest.mark.parametrize("sampling", SECOND_PATHS)
@pytest.mark.parametrize("alpha_O", [ALPHA_O, torch.ones(8) / 8, ALPHA_WITHOUT_IDENTITY_O])
def test_second_path_never_equals_the_first_and_exists(sampling: str, alpha_O: Tensor) -> None:
    log_alpha_LO = repeated_log_alpha(alpha_O)
    first_L = sample_first_path(log_alpha_LO, generator())
    second_L = SAMPLINGS[sampling](log_alpha_LO, first_L, generator(1))
    assert second_L is not None
    assert not (second_L == first_L).any()
    assert alpha_O[second_L].min() > 0


@given(st.lists(st.floats(-30, 0), min_size=2, max_size=9), st.sampled_from(SECOND_PATHS), st.integers(0, 99))
def test_second_path_differs_for_any_alpha(scores: list[float], sampling: str, seed: int) -> None:
    log_alpha_LO = torch.tensor([scores]).log_softmax(-1)
    first_L = sample_first_path(log_alpha_LO, generator(seed))
    second_L = SAMPLINGS[sampling](log_alpha_LO, first_L, generator(seed + 1))
    assert second_L is not None
    assert int(second_L) != int(first_L)
    assert 0 <= int(second_L) < len(scores)


@pytest.mark.parametrize(("sampling", "first"), itertools.product(["bi_random", "bi_gumbel"], [0, 1, 5]))
def test_second_path_is_distributed_as_its_rule_says(sampling: str, first: int) -> None:
    first_L = torch.full((NUM_DRAWS,), first)
    second_L = SAMPLINGS[sampling](repeated_log_alpha(ALPHA_O), first_L, generator())
    assert second_L is not None
    probabilities_O = ALPHA_O.clone() if sampling == "bi_gumbel" else torch.ones(len(ALPHA_O))
    probabilities_O[first] = 0
    assert_distributed(second_L, probabilities_O)


@pytest.mark.parametrize(
    ("sampling", "first", "second"), [("bi_min", 0, 1), ("bi_min", 1, 4), ("bi_max", 1, 0)]
)
def test_second_path_takes_the_lowest_or_highest_other(sampling: str, first: int, second: int) -> None:
    second_L = SAMPLINGS[sampling](ALPHA_O.log()[None], torch.tensor([first]), generator())
    assert second_L is not None
    assert int(second_L) == second


def test_bi_max_takes_the_second_highest_where_the_first_path_took_the_highest() -> None:
    second_L = SAMPLINGS["bi_max"](ALPHA_O.log()[None], torch.tensor([0]), generator())
    assert second_L is not None
    assert int(second_L) == 5


def test_bi_min_passes_over_a_candidate_that_the_layer_lacks() -> None:
    log_alpha_LO = ALPHA_WITHOUT_IDENTITY_O.log()[None]
    second_L = SAMPLINGS["bi_min"](log_alpha_LO, torch.tensor([0]), generator())
    assert second_L is not None
    assert int(second_L) == 1


def test_single_has_no_second_path() -> None:
    log_alpha_LO = repeated_log_alpha(ALPHA_O, 50)
    first_L = sample_first_path(log_alpha_LO, generator())
    assert SAMPLINGS["single"](log_alpha_LO, first_L, generator()) is None


def test_bi_is_read_as_bi_random_and_an_unknown_name_is_refused() -> None:
    assert SearchConfig(space="paper", target_latency_ms=1.0, sampling="bi").sampling == "bi_random"
    assert "bi" not in SAMPLINGS
    with pytest.raises(ValueError, match="did you mean 'bi_random'"):
        SearchConfig(space="paper", target_latency_ms=1.0, sampling="bi_randon")


def test_gumbel_weights_are_those_of_torch_for_the_same_noise() -> None:
    log_alpha_LO = repeated_log_alpha(ALPHA_O, 6)
    weights_LO = gumbel_softmax(log_alpha_LO, 2.5, generator())
    noise_LO = sample_gumbel(log_alpha_LO.shape, generator())
    torch.testing.assert_close(weights_LO, F.softmax((log_alpha_LO + noise_LO) / 2.5, dim=-1))
    torch.testing.assert_close(weights_LO.sum(-1), torch.ones(6))


def test_a_candidate_that_is_missing_gets_weight_0_and_no_gradient() -> None:
    log_alpha_LO = ALPHA_WITHOUT_IDENTITY_O.log().repeat(3, 1).requires_grad_()
    weights_LO = gumbel_softmax(log_alpha_LO, 5.0, generator())
    weights_LO[:, 0].sum().backward()
    assert log_alpha_LO.grad is not None
    assert (weights_LO[:, -1] == 0).all()
    assert (log_alpha_LO.grad[:, -1] == 0).all()
    assert log_alpha_LO.grad.isfinite().all()


def test_temperature_falls_after_each_joint_epoch_and_never_in_warm_up() -> None:
    temperatures = [
        temperature_at(epoch, num_warmup_epochs=2, initial_temperature=5.0, temperature_decay=0.96)
        for epoch in range(1, 7)
    ]
    expected = [5.0, 5.0, 5.0, 5.0 * 0.96, 5.0 * 0.96**2, 5.0 * 0.96**3]
    assert temperatures == pytest.approx(expected, rel=1e-12)
