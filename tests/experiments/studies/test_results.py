"""What a study yields: importances, and the best points as a file that launches."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import yaml

from experiments.cells.search_cell import SearchCell
from experiments.places.place import ThisMachine
from experiments.places.resources import Resources
from experiments.specs.grid_file import load_grid
from experiments.specs.preparation import Preparation
from experiments.specs.study_grid import StudyGrid
from experiments.studies.importance import measure_importances
from experiments.studies.study_results import best_trials, write_results
from tests.support.study_files import ACCURACY, ERROR, load_plan, make_study, write_study

CONDITIONAL = {
    "objective": {"choices": ["tfnas", "fbnet"]},
    "weight_lr": {"low": 0.01, "high": 0.2, "log": True},
    "latency_weight": {"low": 0.01, "high": 1.0, "log": True, "when": {"objective": "tfnas"}},
}


def told(plan: StudyGrid, *values: list[float]) -> optuna.Study:
    """A study whose points have these values."""
    directions = [objective.direction for objective in plan.study.objectives]
    study = optuna.create_study(directions=directions, sampler=optuna.samplers.RandomSampler(seed=0))
    for each in values:
        trial = study.ask()
        plan.study.suggest(trial)
        study.tell(trial, each)
    return study


def prepared(folder: Path, **changes: Any) -> tuple[StudyGrid, list[SearchCell]]:
    plan = load_plan(write_study(folder, make_study(**changes)))
    preparation = Preparation(folder, ThisMachine(Resources(), "here"), "study.yaml", print)
    return plan, plan.check_reach(preparation)


def trials_of(function: Any, num_trials: int) -> list[optuna.trial.FrozenTrial]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    study.optimize(function, num_trials)
    return study.get_trials()


def test_importances_tell_what_matters_from_what_does_not() -> None:
    def function(trial: optuna.Trial) -> float:
        trial.suggest_float("idle", 0, 1)
        return 3 * trial.suggest_float("strong", 0, 1) + trial.suggest_float("weak", 0, 1)

    found = {
        one.field: one
        for one in measure_importances(trials_of(function, 40), ["idle", "strong", "weak"], ["m"])
    }
    assert found["strong"].share > 0.6
    assert found["strong"].share > found["weak"].share > found["idle"].share
    assert found["strong"].chance is not None
    assert found["strong"].share > found["strong"].chance
    assert found["idle"].share < (found["idle"].chance or 0)
    assert sum(one.share for one in found.values()) == pytest.approx(1)


def test_a_log_scale_counts_by_ratios() -> None:
    # Half of all points by ratio are below 1e-2, one in a hundred by difference.
    def function(trial: optuna.Trial) -> float:
        rate, linear = trial.suggest_float("rate", 1e-4, 1, log=True), trial.suggest_float("linear", 0, 1)
        return float(rate > 1e-2) + 0.5 * linear

    found = {
        one.field: one for one in measure_importances(trials_of(function, 60), ["rate", "linear"], ["m"])
    }
    # By hand: variances 1/4 of the step and 1/48 of the slope.
    assert found["rate"].share == pytest.approx(0.25 / (0.25 + 1 / 48), abs=0.05)


def test_a_conditional_field_is_assessed_where_it_was_sampled() -> None:
    def function(trial: optuna.Trial) -> float:
        if trial.suggest_categorical("kind", ["a", "b"]) == "a":
            return trial.suggest_float("only_a", 0, 1)
        return 0.5

    trials = trials_of(function, 40)
    found = {one.field: one for one in measure_importances(trials, ["kind", "only_a"], ["m"])}
    assert found["kind"].num_trials == 40
    assert found["only_a"].num_trials == sum("only_a" in trial.params for trial in trials)
    assert found["only_a"].share > 0.9


def test_too_few_or_equal_values_have_no_importances() -> None:
    def function(trial: optuna.Trial) -> float:
        return 0 * trial.suggest_float("x", 0, 1)

    assert measure_importances(trials_of(function, 10), ["x"], ["m"]) == []
    assert measure_importances(trials_of(lambda trial: trial.suggest_float("x", 0, 1), 3), ["x"], ["m"]) == []


def test_the_best_points_are_those_that_no_other_betters(tmp_path: Path) -> None:
    plan, _ = prepared(tmp_path, objectives=[ACCURACY, ERROR])
    values = np.random.default_rng(0).random((30, 2)).tolist()
    best = {trial.number for trial in best_trials(told(plan, *values))}
    expected = {
        index
        for index, (accuracy, error) in enumerate(values)
        if not any(a >= accuracy and e <= error and (a, e) != (accuracy, error) for a, e in values)
    }
    assert best == expected


def test_best_yaml_is_a_grid_of_the_best_points_with_seeds_that_the_study_has_not_seen(
    tmp_path: Path,
) -> None:
    plan, kinds = prepared(tmp_path, space=CONDITIONAL, seeds=[0, 4], budget={"num_trials": 6})
    study = told(plan, [0.1], [0.6], [0.2], [0.9], [0.5], [0.3])
    path = write_results(plan, study, kinds, tmp_path / "out")
    assert path == tmp_path / "out" / "best.yaml"
    grid = load_grid(path)
    trials = study.get_trials()
    assert grid.spec.experiment == "studied-best"
    assert {draft.config.seed for draft in grid.drafts} == {5, 6, 7}
    for number, draft in zip((3, 1, 4), grid.drafts[::3], strict=True):
        params = {"latency_weight": 0.1} | trials[number].params
        assert {name: getattr(draft.config, name) for name in params} == params
    assert Path(grid.drafts[0].config.latency_table).samefile(tmp_path / "table.json")
    assert yaml.safe_load(path.read_text())["base"]["target_latency_ms"] == "50%"


def test_trials_csv_has_every_point_with_what_was_told_of_it(tmp_path: Path) -> None:
    plan, kinds = prepared(tmp_path, space=CONDITIONAL)
    study = told(plan, [0.1], [0.6])
    failed = study.ask()
    plan.study.suggest(failed)
    failed.set_user_attr("failure", "it diverged")
    study.tell(failed, state=optuna.trial.TrialState.FAIL)
    write_results(plan, study, kinds, tmp_path)
    with (tmp_path / "study" / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["number"], row["state"], row["val_accuracy"]) for row in rows] == [
        ("0", "COMPLETE", "0.1"),
        ("1", "COMPLETE", "0.6"),
        ("2", "FAIL", ""),
    ]
    assert rows[2]["failure"] == "it diverged"
    for row, trial in zip(rows, study.get_trials(), strict=True):
        assert row["objective"] == trial.params["objective"]
        assert float(row["weight_lr"]) == trial.params["weight_lr"]
        assert (row["latency_weight"] == "") == (row["objective"] == "fbnet")
    about = json.loads((tmp_path / "study" / "study.json").read_text())
    assert about["space"]["weight_lr"]["text"] == "0.01 to 0.2, log"
    assert all(math.isfinite(one["share"]) for one in about["importances"])
