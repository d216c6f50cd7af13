"""The numbers of a results version: tiny searches and trainings still come to what was written down.

Tolerances hold on other CPUs of the x86-64 family, and between the two ways of computing a mixed block.
"""

import json
import platform
from typing import Any

import numpy as np
import pytest

from nas.search import search_identity
from nas.search.methods import METHODS
from nas.training import training
from tests.support.goldens import (
    PATH,
    Numbers,
    numbers_of_search,
    run_search_case,
    run_training_case,
    search_cases,
    training_cases,
)

GOLDENS = json.loads(PATH.read_text())
REMEDY = (
    "results changed: raise RESULTS_VERSION in {place} (old results are then kept, and not mixed with new "
    "ones) and run `make goldens`; if no number was meant to change, this is a bug"
)
TOLERANCES = {
    "train_loss": {"rtol": 2e-4},
    "arch_loss": {"rtol": 2e-4},
    "val_loss": {"rtol": 1e-3},
    "expected_latency_ms": {"rtol": 1e-3},
    "alpha_ELO": {"atol": 5e-3},
    "beta_ESD": {"atol": 5e-3},
    "mid_channels": {"atol": 0.5},
    # One of ten images, which rounding may decide.
    "evaluated": {"atol": 0.11},
}

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="torch's random streams differ between families of CPUs"
)


def assert_golden(numbers: Numbers, golden: Numbers, place: str) -> None:
    assert numbers.keys() == golden.keys()
    for name, expected in golden.items():
        for epoch, (one, other) in enumerate(zip(numbers[name], expected, strict=True), start=1):
            actual, wanted = (np.asarray(value, np.float64) for value in (one, other))
            assert actual.shape == wanted.shape, REMEDY.format(place=place)
            is_same = np.allclose(actual, wanted, equal_nan=True, **{"rtol": 0, "atol": 0} | TOLERANCES[name])
            assert is_same, f"{name} of epoch {epoch}: {REMEDY.format(place=place)}"


@pytest.mark.parametrize("kernels", ["torch", "compiled"])
@pytest.mark.parametrize("name", search_cases())
def test_searches_come_to_the_numbers_of_their_results_version(name: str, kernels: str) -> None:
    golden: dict[str, Any] = GOLDENS["search"]["cases"][name]
    fields = search_cases()[name] | {"seed": golden["seed"]}
    numbers = numbers_of_search(run_search_case(fields, kernels))
    assert_golden(numbers, golden["numbers"], "nas/search/search_identity.py")


@pytest.mark.parametrize("name", training_cases())
def test_trainings_come_to_the_numbers_of_their_results_version(name: str) -> None:
    numbers = run_training_case(training_cases()[name])
    assert_golden(numbers, GOLDENS["training"]["cases"][name], "nas/training/training.py")


def test_the_goldens_are_of_the_present_results_versions() -> None:
    assert GOLDENS["search"]["results_version"] == search_identity.RESULTS_VERSION
    assert GOLDENS["training"]["results_version"] == training.RESULTS_VERSION


def test_every_method_has_goldens() -> None:
    methods = {fields.get("method", "tf_nas") for fields in search_cases().values()}
    assert methods == set(METHODS)
