"""What a `study` section may say, and what its space means."""

from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tune_configs
from experiments.specs.experiment_spec import load_spec
from experiments.specs.study_spec import Study
from nas.foundation.errors import UserError
from tests.support.study_files import (
    ACCURACY,
    BASE,
    ERROR,
    FINDINGS,
    RATES,
    load_plan,
    make_study,
    write_study,
)

CONDITIONAL = {
    "objective": {"choices": ["tfnas", "fbnet"]},
    "latency_weight": {"low": 0.01, "high": 1.0, "log": True, "when": {"objective": "tfnas"}},
    "objective_exponent": {"low": 0.1, "high": 1.0, "when": {"objective": ["fbnet"]}},
    "num_warmup_epochs": {"low": 1, "high": 2},
}


def study_of(**changes: Any) -> Study:
    return Study(**make_study(**changes)["study"])


def test_a_field_is_sampled_only_where_its_condition_holds() -> None:
    study = study_of(space=CONDITIONAL)
    asked = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    points = [study.suggest(asked.ask()) for _ in range(40)]
    assert {point["objective"] for point in points} == {"tfnas", "fbnet"}
    for point in points:
        expected = "latency_weight" if point["objective"] == "tfnas" else "objective_exponent"
        assert set(point) == {"objective", expected, "num_warmup_epochs"}
        assert type(point["num_warmup_epochs"]) is int


def test_a_condition_on_a_field_that_is_not_sampled_does_not_hold() -> None:
    nested = CONDITIONAL | {"arch_lr": RATES | {"when": {"objective_exponent": 0.5}}}
    study = study_of(space=nested)
    assert not study.space["arch_lr"].applies({"objective": "tfnas", "latency_weight": 0.1})


def test_the_corners_of_a_space_are_all_points_of_extreme_values() -> None:
    corners = list(study_of(space=CONDITIONAL).corners())
    distinct = {tuple(sorted(corner.items())) for corner in corners}
    expected = {
        (("latency_weight", weight), ("num_warmup_epochs", epochs), ("objective", "tfnas"))
        for weight in (0.01, 1.0)
        for epochs in (1, 2)
    } | {
        (("num_warmup_epochs", epochs), ("objective", "fbnet"), ("objective_exponent", exponent))
        for exponent in (0.1, 1.0)
        for epochs in (1, 2)
    }
    assert distinct == expected


@settings(max_examples=30, deadline=None)
@given(low=st.floats(1e-4, 1.0), factor=st.floats(1.01, 100), log=st.booleans(), seed=st.integers(0, 99))
def test_what_is_sampled_lies_between_low_and_high(low: float, factor: float, log: bool, seed: int) -> None:
    study = study_of(space={"weight_lr": {"low": low, "high": low * factor, "log": log}})
    asked = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    assert low <= study.suggest(asked.ask())["weight_lr"] <= low * factor


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a grid": (
        make_study() | {"grid": {"seed": [0, 1]}},
        "grid: does not go with `study`: a grid runs every",
    ),
    "claims": (
        make_study() | {"claims": {"mine": {}, "e": None}},
        "claims: mine, e: does not go with `study`",
    ),
    "cells": (make_study() | {"cells": [{"seed": 0}]}, "cells: does not go with `study`"),
    "pruning of several objectives": (
        make_study(objectives=[ACCURACY, ERROR], pruning="asha"),
        "study.pruning: asha: several objectives",
    ),
    "pruning by what only the end shows": (
        make_study(objectives=[FINDINGS], pruning="asha"),
        "study.pruning: asha: only the last epoch has num_health_findings",
    ),
    "pruning of several seeds": (
        make_study(seeds=[0, 1], pruning="median"),
        "study.pruning: median: a point's",
    ),
    "pruning in a grid": (
        {"experiment": "studied", "base": BASE, "grid": {"seed": [0, 1]}, "pruning": "asha"},
        "pruning: ending searches early would bias",
    ),
    "a seed as a field": (
        make_study(space={"seed": {"low": 0, "high": 9}}),
        "list seeds in `seeds`",
    ),
    "an unknown field": (make_study(space={"weight_lrr": RATES}), "study.space.weight_lrr: unknown field"),
    "an unknown metric": (
        make_study(objectives=[{"metric": "accuracy", "direction": "maximize"}]),
        "study.objectives[0].metric: 'accuracy'; choose among ",
    ),
    "a wrong direction": (
        make_study(objectives=[{"metric": "val_accuracy", "direction": "up"}]),
        "study.objectives[0].direction: 'up'",
    ),
    "trainings": (
        make_study() | {"architectures": ["tf-nas-a"]},
        "study: does not go with `architectures`",
    ),
    "no budget": (make_study(budget={}), "study.budget: empty; give num_trials, hours or both"),
    "hours alone for a space that ends": (
        make_study(budget={"hours": 1.0}, space={"depth": {"choices": ["sink", "skip"]}}),
        "study.budget.num_trials: missing; add it: the space has only 2 points",
    ),
    "conditions for a Gaussian process": (
        make_study(space=CONDITIONAL, sampler="gp"),
        "study.sampler: gp: would draw conditional fields",
    ),
    "a log scale from 0": (
        make_study(space={"weight_lr": RATES | {"low": 0.0}}),
        "study.space.weight_lr: low: 0.0: must be above 0 on a log scale",
    ),
    "bounds exchanged": (make_study(space={"weight_lr": {"low": 1.0, "high": 0.1}}), "above high (0.1)"),
    "text for a number": (
        make_study(space={"weight_lr": RATES | {"low": "1e-3"}}),
        "study.space.weight_lr.low",
    ),
    "fractions for an integer": (
        make_study(space={"batch_size": {"low": 1.5, "high": 8.0}}),
        "study.space.batch_size: an integer; write low, high",
    ),
    "an interval of words": (
        make_study(space={"depth": {"low": 1, "high": 2}}),
        "give its values as `choices`",
    ),
    "a condition on nothing": (
        make_study(space={"weight_lr": RATES | {"when": {"depth": "sink"}}}),
        "study.space.weight_lr.when.depth: not a field above weight_lr",
    ),
    "a condition that never holds": (
        make_study(
            space={"elasticity": {"choices": [True, False]}, "weight_lr": RATES | {"when": {"elasticity": 1}}}
        ),
        "study.space.weight_lr.when.elasticity: 1: not among the choices of elasticity",
    ),
    "a field in base, too": (
        make_study() | {"base": BASE | {"weight_lr": 0.1}},
        "base.weight_lr: also in `study.space`; remove one of the two",
    ),
    "an impossible value": (
        make_study(space={"depth": {"choices": ["sink", "sunk"]}}),
        "study.space.depth: 'sunk'",
    ),
    "an impossible combination": (
        make_study(space={"num_epochs": {"low": 2, "high": 3}, "num_warmup_epochs": {"low": 0, "high": 3}})
        | {"base": {name: value for name, value in BASE.items() if not name.startswith("num_")}},
        "num_warmup_epochs: 3; must be below num_epochs (2)",
    ),
    "a password with a space, which nothing distinguishes from other text": (
        make_study(storage="postgresql://me:my word@host/db"),
        "study.storage: a space in the password; write %20",
    ),
    "a field without effect": (
        make_study(space={"objective": {"choices": ["tfnas", "fbnet"]}, "latency_weight": RATES}),
        "study.space.latency_weight: has no effect in some points",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_meant_is_refused_in_a_line_each(what: str, tmp_path: Path) -> None:
    content, expected = REFUSED[what]
    path = write_study(tmp_path, content)
    with pytest.raises(UserError) as caught:
        load_plan(path)
    assert expected in str(caught.value)
    assert all(line.startswith(f"{path}: ") for line in str(caught.value).splitlines())


@pytest.mark.parametrize("name", ["study_smoke", "study_robustness"])
def test_the_studies_that_come_with_the_package_can_be_meant(name: str) -> None:
    plan = load_plan(Path(tune_configs.__file__).parent / f"{name}.yaml")
    assert plan.spec.experiment == name
    assert len(plan.study.objectives) == 2


def test_a_study_is_read_with_its_defaults(tmp_path: Path) -> None:
    spec = load_spec(write_study(tmp_path, make_study()))
    assert spec.study is not None
    assert (spec.study.pruning, spec.study.seeds, spec.study.storage) == ("none", None, None)
    assert spec.factor_names() == ["weight_lr"]
