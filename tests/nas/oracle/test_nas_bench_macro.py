"""The space of NAS-Bench-Macro against enumeration, and its file as it is read."""

import json
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from nas.foundation.errors import UserError
from nas.oracle.nas_bench_macro import NAS_BENCH_MACRO, load_nas_bench_macro
from nas.space.redundancy import num_equal_encodings
from tests.support.nas_bench_macro import (
    KEYS,
    PUBLIC_FILE,
    needs_public_file,
    network_of,
    synthetic_content,
    write_table,
)


def test_there_are_3969_networks_by_our_redundancy_code_and_by_enumeration() -> None:
    num_equal = Counter(network_of(key) for key in KEYS)
    assert len(num_equal) == 3969
    total = Fraction(0)
    for key in KEYS:
        found = num_equal_encodings(NAS_BENCH_MACRO, [int(digit) - 1 for digit in key])
        assert found == num_equal[network_of(key)]
        total += Fraction(1, found)
    assert total == 3969


def test_the_table_holds_each_network_once_with_the_accuracies_of_all_its_encodings(tmp_path: Path) -> None:
    content = synthetic_content()
    oracle = load_nas_bench_macro(write_table(tmp_path / "table.json", content))
    assert oracle.names_N == tuple(sorted({network_of(key) for key in KEYS}))
    assert oracle.choices_EL.shape == (6561, 8)
    for choices, network in zip(oracle.choices_EL, oracle.network_E, strict=True):
        key = "".join(map(str, choices))
        assert oracle.names_N[network] == network_of(key)
        assert oracle.accuracies_NR[network].tolist() == [value / 100 for value in content[key]["test_acc"]]
    for name, code in zip(oracle.names_N, oracle.codes_NF, strict=True):
        assert name == "".join(str(int(feature)) for feature in code)


def test_regret_is_counted_from_the_best_mean_over_trainings(tmp_path: Path) -> None:
    content = synthetic_content()
    oracle = load_nas_bench_macro(write_table(tmp_path / "table.json", content))
    means = {name: np.mean(content[name]["test_acc"]) / 100 for name in oracle.names_N}
    expected = [max(means.values()) - means[name] for name in oracle.names_N]
    np.testing.assert_allclose(oracle.regrets_N, expected, atol=1e-12)


def test_encodings_of_one_network_with_different_accuracies_are_refused(tmp_path: Path) -> None:
    content = synthetic_content()
    content["22212202"] = {"test_acc": [90.0, 90.0, 90.0]}
    with pytest.raises(UserError, match=r"22212202\.test_acc: differs from that of 22212220"):
        load_nas_bench_macro(write_table(tmp_path / "table.json", content))


def _num_parameters(key: str) -> int:
    """Convolutions without bias, each with batch norm; a classifier of ten classes."""

    def conv_bn(in_channels: int, out_channels: int, kernel_size: int = 1) -> int:
        return in_channels * out_channels * kernel_size**2 + 2 * out_channels

    space = NAS_BENCH_MACRO
    total = conv_bn(3, space.stem_channels, 3)
    for layer, digit in zip(space.layers, key, strict=True):
        if digit == "0":
            total += 0 if layer.keeps_shape else conv_bn(layer.in_channels, layer.out_channels)
        else:
            op = space.ops[int(digit) - 1]
            width = op.initial_width(layer.in_channels)
            total += conv_bn(layer.in_channels, width) + conv_bn(1, width, op.kernel_size)
            total += conv_bn(width, layer.out_channels)
    channels = space.stages[-1].out_channels
    return total + conv_bn(channels, space.head_channels) + 10 * (space.head_channels + 1)


@needs_public_file
def test_the_space_has_the_parameters_that_the_public_file_states() -> None:
    content = json.loads(PUBLIC_FILE.read_text())
    for key in KEYS[::37]:
        assert _num_parameters(key) == content[key]["params"]


@needs_public_file
def test_the_public_file_is_read_whole() -> None:
    content = json.loads(PUBLIC_FILE.read_text())
    oracle = load_nas_bench_macro(PUBLIC_FILE)
    assert len(oracle.names_N) == 3969
    best = max(content, key=lambda key: content[key]["mean_acc"])
    assert oracle.names_N[int(np.argmin(oracle.regrets_N))] == network_of(best)
    expected = [content[name]["mean_acc"] / 100 for name in oracle.names_N]
    np.testing.assert_allclose(oracle.mean_accuracies_N, expected)
