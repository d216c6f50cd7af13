"""What a launch finds of a study that an earlier one left behind, at whatever moment it was killed."""

from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from experiments.launching.grid_launch import Work
from experiments.places.place import ThisMachine
from experiments.specs.preparation import Preparation
from experiments.studies.points import Points
from experiments.studies.samplers import make_pruner
from experiments.studies.study_launch import open_study
from nas.foundation.errors import UserError
from tests.support.study_files import ACCURACY, ERROR, load_plan, make_study, write_study

TWO_SEEDS = {"objectives": [ACCURACY, ERROR], "seeds": [3, 5]}


def open_points(folder: Path, num_epochs: int = 2, **changes: Any) -> Points:
    """The points as a launch finds them."""
    content = make_study(**changes)
    content["base"] = content["base"] | {"num_epochs": num_epochs}
    plan = load_plan(write_study(folder, content))
    out = folder / "out"
    out.mkdir(exist_ok=True)
    with plan.place(None) as place:
        assert isinstance(place, ThisMachine)
        preparation = Preparation(out, place, "study.yaml", print)
        kinds = plan.check_reach(preparation)
        study = open_study(plan, out, plan.definition(kinds))
        study.pruner = make_pruner(plan.study, 1)
        return Points(plan, study, Work(plan, kinds, out, place, None), preparation)


def run(points: Points, *outcomes: tuple[float, float] | str) -> None:
    """Journals as searches leave them: two epochs and an end; or what went wrong."""
    for outcome in outcomes:
        cell = points.next_cell()
        assert cell is not None
        points.work.prepare(cell)
        journal = points.folders[cell.hash].journal
        journal.start("launch")
        if isinstance(outcome, str):
            journal.finish("FAILED", outcome)
            continue
        accuracy, error = outcome
        journal.add_epoch(1, {"val_accuracy": 0.1, "latency_error_percent": 0.0})
        journal.add_epoch(2, {"val_accuracy": accuracy, "latency_error_percent": error})
        journal.finish("FINISHED")


def states(points: Points) -> list[str]:
    return [trial.state.name for trial in points.study.get_trials()]


def test_a_point_is_told_the_mean_over_seeds_of_the_last_epoch_once(tmp_path: Path) -> None:
    points = open_points(tmp_path, **TWO_SEEDS)
    points.ask()
    run(points, (0.5, -3.0))
    points.tell_ended()
    assert states(points) == ["RUNNING"]
    run(points, (0.8, 1.0))
    points.tell_ended()
    points.tell_ended()
    (trial,) = points.study.get_trials()
    assert trial.state == TrialState.COMPLETE
    # The mean of distances, not the distance of the mean.
    assert trial.values == pytest.approx([0.65, 2.0])
    assert points.num_open == 0


def test_searches_that_ended_before_a_kill_are_told_by_the_next_launch(tmp_path: Path) -> None:
    points = open_points(tmp_path, **TWO_SEEDS)
    points.ask()
    run(points, (0.5, 2.0), (0.7, 4.0))
    later = open_points(tmp_path, **TWO_SEEDS)
    assert later.num_open == 1
    assert later.next_cell() is None
    later.tell_ended()
    assert later.study.get_trials()[0].values == pytest.approx([0.6, 3.0])


def test_a_point_that_was_asked_for_before_a_kill_is_gone_on_with_and_not_asked_for_again(
    tmp_path: Path,
) -> None:
    points = open_points(tmp_path, **TWO_SEEDS)
    points.ask()
    points.ask()
    run(points, (0.5, 2.0))
    left = {cell.hash for cell in points.cells.values()} - {next(iter(points.cells))}
    later = open_points(tmp_path, **TWO_SEEDS)
    found = []
    while cell := later.next_cell():
        found.append(cell.hash)
    assert len(found) == 3
    assert set(found) == left
    assert len(later.study.get_trials()) == 2


def test_a_point_whose_values_were_not_all_drawn_before_a_kill_gets_the_rest(tmp_path: Path) -> None:
    space = {"weight_lr": {"low": 0.01, "high": 0.2}, "arch_lr": {"low": 0.01, "high": 0.2}}
    points = open_points(tmp_path, space=space)
    trial = points.study.ask()
    drawn = trial.suggest_float("weight_lr", 0.01, 0.2)
    later = open_points(tmp_path, space=space)
    cell = later.next_cell()
    assert cell is not None
    assert cell.config.weight_lr == drawn
    assert later.study.get_trials()[0].params == {"weight_lr": drawn, "arch_lr": cell.config.arch_lr}


def test_points_do_not_depend_on_how_often_a_study_was_gone_on_with(tmp_path: Path) -> None:
    at_once = open_points(tmp_path / "one")
    for _ in range(4):
        at_once.ask()
    for _ in range(4):
        open_points(tmp_path / "four").ask()
    again = open_points(tmp_path / "four")
    drawn = [trial.params for trial in at_once.study.get_trials()]
    assert drawn == [trial.params for trial in again.study.get_trials()]
    assert len({params["weight_lr"] for params in drawn}) == 4
    for number, params in enumerate(drawn):
        seed = int(np.random.SeedSequence((0, number)).generate_state(1)[0])
        alone = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
        assert alone.ask().suggest_float("weight_lr", 0.01, 0.2, log=True) == params["weight_lr"]


def test_a_failed_search_fails_its_point_with_the_reason_and_counts(tmp_path: Path) -> None:
    points = open_points(tmp_path, budget={"num_trials": 1}, **TWO_SEEDS)
    points.ask()
    run(points, "DivergedError: epoch 1: train_loss is nan", (0.5, 1.0))
    points.tell_ended()
    (trial,) = points.study.get_trials()
    assert trial.state == TrialState.FAIL
    assert trial.user_attrs["failure"] == "DivergedError: epoch 1: train_loss is nan"
    assert points.is_spent()


def test_points_that_agree_share_one_search(tmp_path: Path) -> None:
    changes = {"space": {"depth": {"choices": ["sink"]}}, "budget": {"num_trials": 3}}
    points = open_points(tmp_path, **changes)
    points.ask()
    points.ask()
    run(points, (0.5, 1.0))
    assert points.next_cell() is None
    points.tell_ended()
    later = open_points(tmp_path, **changes)
    later.ask()
    assert later.next_cell() is None
    later.tell_ended()
    assert [trial.value for trial in later.study.get_trials()] == [0.5, 0.5, 0.5]


def test_the_hours_of_a_budget_are_those_of_searching(tmp_path: Path) -> None:
    points = open_points(tmp_path, budget={"hours": 1.0})
    points.ask()
    cell = points.next_cell()
    assert cell is not None
    points.work.prepare(cell)
    path = points.folders[cell.hash].path / "journal.jsonl"
    hour_ms = 3_600_000
    # 30 minutes, a kill that was noticed 9 hours later, and 20 minutes more.
    path.write_text(
        f'{{"kind": "start", "time_ms": {hour_ms}}}\n'
        f'{{"kind": "epoch", "time_ms": {hour_ms * 1.5:.0f}, "epoch": 1}}\n'
        f'{{"kind": "end", "time_ms": {hour_ms * 10}, "outcome": "KILLED"}}\n'
        f'{{"kind": "start", "time_ms": {hour_ms * 10}}}\n'
        f'{{"kind": "epoch", "time_ms": {hour_ms * 10 + 1_200_000}, "epoch": 2}}\n'
    )
    assert points.searched_hours() == pytest.approx(0.5 + 1 / 3)
    assert not points.is_spent()


@pytest.mark.parametrize("pruning", ["median", "asha"])
def test_a_search_behind_the_others_is_pruned_after_warm_up_by_a_later_launch_as_well(
    tmp_path: Path, pruning: str
) -> None:
    changes = {"pruning": pruning, "budget": {"num_trials": 9}, "num_epochs": 4}
    points = open_points(tmp_path, **changes)
    for _ in range(5):
        points.ask()
        cell = points.next_cell()
        assert cell is not None
        # Warm-up, then one epoch better than all before, so that ASHA keeps it.
        assert not points.report(cell.hash, 1, {"val_accuracy": 0.3})
        assert not points.report(cell.hash, 2, {"val_accuracy": 0.3 + 0.01 * points.num_begun})
        points.study.tell(points.num_begun - 1, 0.4)
    later = open_points(tmp_path, **changes)
    later.ask()
    cell = later.next_cell()
    assert cell is not None
    assert not later.report(cell.hash, 1, {"val_accuracy": 0.0})
    assert later.report(cell.hash, 2, {"val_accuracy": 0.0})
    journal = later.folders[cell.hash].journal
    journal.start("launch")
    journal.finish("PRUNED", "pruned after epoch 2")
    # Killed before Optuna was told.
    last = open_points(tmp_path, **changes)
    last.tell_ended()
    assert last.num_open == 0
    assert states(last)[-1] == "PRUNED"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"space": {"weight_lr": {"low": 0.01, "high": 0.3, "log": True}}}, "space: changed since the study"),
        ({"seeds": [1]}, "seeds: changed"),
        ({"objectives": [ACCURACY | {"metric": "train_accuracy"}]}, "objectives: changed"),
    ],
)
def test_a_study_that_became_another_is_refused(
    tmp_path: Path, changes: dict[str, Any], expected: str
) -> None:
    open_points(tmp_path)
    with pytest.raises(UserError) as caught:
        open_points(tmp_path, **changes)
    assert expected in str(caught.value)


def test_budget_and_sampler_of_a_study_may_change(tmp_path: Path) -> None:
    open_points(tmp_path).ask()
    later = open_points(tmp_path, budget={"num_trials": 9}, sampler="tpe")
    assert later.num_begun == 1
