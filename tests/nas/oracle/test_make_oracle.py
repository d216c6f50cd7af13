"""The script that turns trainings of all networks of a space into its oracle."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis.reading.run import Run
from nas.foundation.errors import UserError
from nas.oracle.space_oracle import read_oracle
from nas.space.enumeration import all_architectures, operator_code
from nas.space.macro_space import NANO
from scripts.make_oracle import extend, to_text
from tests.support.hand_made import run
from tests.support.tiny import make_dense_table

TABLE = make_dense_table(NANO)
CODES = [operator_code(each, NANO) for each in all_architectures(NANO)]


def training(code: str, seed: int, accuracy: float, num_epochs: int = 8) -> Run:
    made = run(
        f"{code}-{seed}", {"test_accuracy": accuracy}, seed=seed, num_epochs=num_epochs, dataset="cifar10"
    )
    tags = {"factor.architecture": f"nano-{code}", "tfnas.data_fingerprint": "f" * 64}
    return replace(made, kind="train", tags=tags)


def trainings(seed: int) -> list[Run]:
    return [training(code, seed, 0.5 + index / 1000 + seed / 100) for index, code in enumerate(CODES)]


def test_made_in_pieces_it_reads_as_made_at_once(tmp_path: Path) -> None:
    at_once = extend({}, NANO, TABLE, trainings(0) + trainings(1))
    content = extend({}, NANO, TABLE, trainings(0))
    some = trainings(1)
    content = extend(json.loads(to_text(content)), NANO, TABLE, some[:100])
    content = extend(json.loads(to_text(content)), NANO, TABLE, some[100:])
    assert content == at_once
    path = tmp_path / "nano.json"
    path.write_text(to_text(content))
    oracle = read_oracle(path)
    assert oracle.dataset == "cifar10"
    expected = [[0.5 + index / 1000, 0.51 + index / 1000] for index in range(len(CODES))]
    np.testing.assert_allclose(oracle.accuracies_NR, expected)
    for architecture, latency_ms in zip(all_architectures(NANO), oracle.latencies_ms_N, strict=True):
        assert latency_ms == pytest.approx(TABLE.latency_ms(architecture), abs=1e-6)


def test_a_training_that_is_known_stays_as_it_is() -> None:
    content = extend({}, NANO, TABLE, trainings(0))
    assert extend(content, NANO, TABLE, [training(CODES[0], 0, 0.9)]) == content


@pytest.mark.parametrize("is_known", [False, True])
def test_trainings_of_two_protocols_are_refused(is_known: bool) -> None:
    longer = training(CODES[0], 1, 0.9, num_epochs=9)
    known = extend({}, NANO, TABLE, trainings(0)) if is_known else {}
    with pytest.raises(UserError, match="2 protocols"):
        extend(known, NANO, TABLE, [longer] if is_known else [*trainings(0), longer])


def test_without_trainings_nothing_is_made() -> None:
    with pytest.raises(UserError, match="0 protocols"):
        extend({}, NANO, TABLE, [])
