"""The oracle of a space: read from its file, and what it says of a network."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas.foundation.errors import UserError
from nas.oracle.space_oracle import SpaceOracle, read_oracle
from nas.space.enumeration import all_architectures, operator_code
from nas.space.macro_space import NANO

CODES = [operator_code(each, NANO) for each in all_architectures(NANO)]


def write(folder: Path, **changes: Any) -> Path:
    """An oracle in which slower networks are better, but for noise."""
    rng = np.random.default_rng(0)
    networks = {
        code: {
            "latency_ms": 1 + index / 100,
            "test_accuracy": {str(seed): 0.5 + index / 1000 + rng.normal(0, 0.02) for seed in (0, 1)},
        }
        for index, code in enumerate(CODES)
    }
    content = {
        "space": "nano",
        "dataset": "cifar10",
        "provenance": {"protocol": "made up"},
        "networks": networks,
    } | changes
    path = folder / "nano.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("has_other_table", [False, True])
def test_regret_is_against_the_best_network_that_meets_the_target(
    tmp_path: Path, has_other_table: bool
) -> None:
    oracle = read_oracle(write(tmp_path))
    other_ms_N = oracle.latencies_ms_N[::-1] if has_other_table else None
    latencies_ms_N = oracle.latencies_ms_N if other_ms_N is None else other_ms_N
    for target_ms in (0.5, 2.0, 3.3, 9.0):
        regrets_N = oracle.regrets_N(target_ms, other_ms_N)
        for index in range(400):
            budget_ms = max(target_ms, latencies_ms_N[index])
            rivals = [
                oracle.accuracies_N[other] for other in range(400) if latencies_ms_N[other] <= budget_ms
            ]
            assert regrets_N[index] == pytest.approx(max(rivals) - oracle.accuracies_N[index])


def test_a_network_far_below_the_target_has_the_regret_of_what_it_left_unused(tmp_path: Path) -> None:
    oracle = read_oracle(write(tmp_path))
    fastest = oracle.latencies_ms_N.argmin()
    assert oracle.regrets_N(9.0)[fastest] == oracle.accuracies_N.max() - oracle.accuracies_N[fastest]


def test_a_network_is_found_at_its_initial_widths_only(tmp_path: Path) -> None:
    oracle = read_oracle(write(tmp_path))
    for index, architecture in enumerate(all_architectures(NANO)):
        assert oracle.index_of(architecture) == index
    widths = [width for _, _, width in architecture.layers]
    assert oracle.index_of(architecture.with_widths([widths[0] - 1, *widths[1:]])) is None


def test_seeds_that_some_networks_lack_are_left_out(tmp_path: Path) -> None:
    content = json.loads(write(tmp_path).read_text())
    del content["networks"]["0-0"]["test_accuracy"]["1"]
    oracle = read_oracle(write(tmp_path, networks=content["networks"]))
    assert oracle.accuracies_NR.shape == (400, 1)


def _lacks_a_network(content: dict[str, Any]) -> None:
    del content["networks"]["0-0"]


def _lacks_all_seeds(content: dict[str, Any]) -> None:
    content["networks"]["0-0"]["test_accuracy"] = {}


def _exceeds_one(content: dict[str, Any]) -> None:
    content["networks"]["0-0"]["test_accuracy"]["0"] = 84.0


@pytest.mark.parametrize("damage", [_lacks_a_network, _lacks_all_seeds, _exceeds_one])
def test_a_damaged_oracle_is_refused_in_one_line(damage: Any, tmp_path: Path) -> None:
    content = json.loads(write(tmp_path).read_text())
    damage(content)
    with pytest.raises(UserError) as caught:
        read_oracle(write(tmp_path, **content))
    assert "\n" not in str(caught.value)


def test_equal_accuracies_have_no_regret() -> None:
    oracle = SpaceOracle("nano", "cifar10", tuple(CODES), np.full((400, 2), 0.8), np.arange(1.0, 401.0), {})
    assert not oracle.regrets_N(100.0).any()
