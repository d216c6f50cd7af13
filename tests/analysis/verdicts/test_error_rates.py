"""Verdicts on synthetic experiments whose truth is known; `benchmarks.verdicts` does more."""

import numpy as np
import pytest

from benchmarks.verdicts import DISTRIBUTIONS, simulate


@pytest.fixture(autouse=True)
def _no_advice(monkeypatch: pytest.MonkeyPatch):
    """How many seeds to add is only said, and takes half of the time."""
    monkeypatch.setattr("analysis.verdicts.verdict._seeds_to_add", lambda *_: "")


@pytest.mark.parametrize("num_seeds", [7, 10, 12])
def test_verdicts_are_wrong_no_more_often_than_promised(num_seeds: int):
    rates = [simulate(sample, num_seeds, num_experiments=60) for sample in DISTRIBUTIONS.values()]
    assert np.mean([one.false_supported for one in rates]) <= 0.05
    assert np.mean([one.wrong_not_supported for one in rates]) <= 0.05
    assert np.mean([one.coverage for one in rates]) >= 0.94
    # A test that never finds anything would pass all of the above.
    assert np.mean([one.supported for one in rates]) >= 0.6


def test_a_verdict_that_ignores_multiplicity_or_skewness_would_be_caught(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "analysis.verdicts.verdict._holm", lambda p_values: {k: p or 1.0 for k, p in p_values.items()}
    )
    rates = [simulate(sample, 10, num_experiments=60) for sample in DISTRIBUTIONS.values()]
    assert np.mean([one.false_supported for one in rates]) > 0.05
