"""Whole studies: the real command, Ray, Optuna's storage in SQLite, searches and MLflow."""

import os
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import numpy as np
import optuna
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from optuna.trial import TrialState

from analysis.reading.experiment_reader import read_experiment
from analysis.reading.store import tracking_uri_of
from experiments.cells.journal import Journal
from experiments.specs.grid_file import load_grid
from nas.foundation.uris import sqlite_uri
from tests.support.command import tfnas
from tests.support.limits import PATIENCE_S
from tests.support.study_files import ACCURACY, ERROR, RATES, command, load, make_study, write_study

SPACE = {
    "objective": {"choices": ["tfnas", "fbnet"]},
    "weight_lr": RATES,
    "latency_weight": {"low": 0.01, "high": 1.0, "log": True, "when": {"objective": "tfnas"}},
}
NUM_POINTS, SEEDS = 3, [0, 1]
NAME = "My%20Drive why? {x}#b%41"
"""Of the output folder: in a URI each part means something else."""


def runs_of(out: Path, kind: str) -> list[Run]:
    client = MlflowClient(sqlite_uri(out / "mlflow.db"))
    experiment = client.get_experiment_by_name("studied")
    return list(client.search_runs([experiment.experiment_id], f"tags.`tfnas.kind` = '{kind}'"))


def journals(out: Path) -> dict[str, Journal]:
    return {path.parent.name: Journal(path) for path in sorted(out.glob("cells/*/journal.jsonl"))}


def kill_in_the_middle(*arguments: str, out: Path) -> None:
    """Starts the command and kills its driver when a point was told and further searches are under way."""
    line, environment = command(*arguments)
    process = subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        is_under_way = any(journal.epochs and journal.end is None for journal in journals(out).values())
        if is_under_way and TrialState.COMPLETE in [trial.state for trial in load(out).get_trials()]:
            break
        time.sleep(0.1)
    assert process.poll() is None, "it ended before it was killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The output folder of a study whose launch was killed, and what the same command said afterwards."""
    folder = tmp_path_factory.mktemp("study")
    content = make_study(
        space=SPACE, objectives=[ACCURACY, ERROR], seeds=SEEDS, budget={"num_trials": NUM_POINTS}
    )
    # So long that none ends between being seen and being killed.
    content["base"] = content["base"] | {"max_train_images": 400}
    path, out = write_study(folder, content), folder / NAME
    temporary = folder / "a_scratch_folder_as_batch_systems_make_them" / "job_1355700" / "node_local_0123"
    temporary.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_TMPDIR", raising=False)
        patch.setenv("TMPDIR", str(temporary))
        kill_in_the_middle("launch", str(path), "--out", str(out), out=out)
        left = load(out).get_trials()
        assert any(not trial.state.is_finished() for trial in left)
        return out, tfnas("launch", str(path), "--out", str(out))


Resumed = tuple[Path, subprocess.CompletedProcess[str]]


def test_a_killed_study_ends_with_every_point_once_and_told_once(resumed: Resumed) -> None:
    out, done = resumed
    assert done.returncode == 0, done.stdout + done.stderr
    trials = load(out).get_trials()
    assert [trial.number for trial in trials] == list(range(NUM_POINTS))
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    found = journals(out)
    assert len(found) == NUM_POINTS * len(SEEDS)
    for journal in found.values():
        assert Counter(event.epoch for event in journal.events if event.kind == "epoch") == {1: 1, 2: 1}
        assert journal.end is not None
        assert journal.end.outcome == "FINISHED"
    # What was finished before the kill was not begun again.
    num_starts = sum(event.kind == "start" for journal in found.values() for event in journal.events)
    assert len(found) < num_starts < 2 * len(found)


def test_points_are_those_of_a_study_that_nobody_killed_and_respect_conditions(resumed: Resumed) -> None:
    for trial in load(resumed[0]).get_trials():
        seed = int(np.random.SeedSequence((0, trial.number)).generate_state(1)[0])
        drawn = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask()
        expected = {
            "objective": drawn.suggest_categorical("objective", ["tfnas", "fbnet"]),
            "weight_lr": drawn.suggest_float("weight_lr", 0.01, 0.2, log=True),
        }
        if expected["objective"] == "tfnas":
            expected["latency_weight"] = drawn.suggest_float("latency_weight", 0.01, 1.0, log=True)
        assert trial.params == expected


def test_both_databases_are_in_the_output_folder_whatever_its_name(resumed: Resumed) -> None:
    out, _ = resumed
    counts = {"mlflow.db": ("runs", 1 + NUM_POINTS * len(SEEDS)), "study.db": ("trials", NUM_POINTS)}
    for name, (table, count) in counts.items():
        with closing(sqlite3.connect(out / name)) as database:
            assert database.execute(f"SELECT count(*) FROM {table}").fetchone() == (count,)
    beside = {path.name for path in out.parent.iterdir()}
    assert beside == {NAME, "study.yaml", "table.json", "a_scratch_folder_as_batch_systems_make_them"}
    found = read_experiment("studied", tracking_uri_of(out))
    assert len(found.runs) == NUM_POINTS * len(SEEDS)
    assert all(run.is_read for run in found.runs)


def test_a_temporary_folder_that_is_too_long_for_sockets_is_replaced_with_a_warning(resumed: Resumed) -> None:
    _, done = resumed
    assert "its files go to /tmp" in done.stderr


def test_a_point_has_the_mean_of_its_runs_in_mlflow_for_its_value(resumed: Resumed) -> None:
    out, _ = resumed
    runs = {run.info.run_name: run for run in runs_of(out, "search")}
    assert len(runs) == NUM_POINTS * len(SEEDS)
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    for trial in load(out).get_trials():
        own = [runs[f"trial-{trial.number}-s{seed}"] for seed in SEEDS]
        for run, seed in zip(own, SEEDS, strict=True):
            assert run.data.params["seed"] == str(seed)
            assert run.data.params["weight_lr"] == str(trial.params["weight_lr"])
        accuracies = [run.data.metrics["val_accuracy"] for run in own]
        errors = [abs(run.data.metrics["latency_error_percent"]) for run in own]
        assert trial.values == pytest.approx([sum(accuracies) / 2, sum(errors) / 2])


def test_the_study_is_the_parent_of_its_runs_and_has_its_results(resumed: Resumed) -> None:
    out, _ = resumed
    (parent,) = runs_of(out, "launch")
    assert parent.info.status == "FINISHED"
    assert parent.data.params["space.latency_weight"] == "0.01 to 1.0, log, when objective is tfnas"
    assert {run.data.tags["mlflow.parentRunId"] for run in runs_of(out, "search")} == {parent.info.run_id}
    client = MlflowClient(sqlite_uri(out / "mlflow.db"))
    names = {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert {"study.yaml", "study.json", "trials.csv", "best.yaml", "figures"} <= names
    figures = {item.path for item in client.list_artifacts(parent.info.run_id, "figures")}
    assert {"figures/study-front.png", "figures/study-slices.svg"} <= figures


def test_launching_a_study_again_runs_nothing_and_best_yaml_launches(
    resumed: Resumed, tmp_path: Path
) -> None:
    out, _ = resumed
    before = [(trial.datetime_complete, trial.values) for trial in load(out).get_trials()]
    again = tfnas("launch", str(out.parent / "study.yaml"), "--out", str(out))
    assert again.returncode == 0, again.stderr
    assert f"Study of at most {NUM_POINTS} points: {NUM_POINTS} points done" in again.stdout
    assert [(trial.datetime_complete, trial.values) for trial in load(out).get_trials()] == before
    assert len(runs_of(out, "search")) == NUM_POINTS * len(SEEDS)
    dry = tfnas("launch", str(out / "best.yaml"), "--out", str(tmp_path / "best"), "--dry-run")
    assert dry.returncode == 0, dry.stderr
    num_cells = len(load_grid(out / "best.yaml").drafts)
    assert f"{num_cells} of {num_cells} searches to run" in dry.stdout


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "gp"])
def test_each_sampler_runs_a_study_of_points_that_differ(sampler: str, tmp_path: Path) -> None:
    space = {"weight_lr": RATES, "arch_lr": dict(RATES)} if sampler == "gp" else SPACE
    content = make_study(
        sampler=sampler, space=space, objectives=[ACCURACY, ERROR], budget={"num_trials": 12}
    )
    path, out = write_study(tmp_path, content), tmp_path / "out"
    done = tfnas("launch", str(path), "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    trials = load(out).get_trials()
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 12
    # From its second generation of eight on, NSGA-II hands values down from one point to another.
    num_distinct = len({trial.params["weight_lr"] for trial in trials})
    assert num_distinct >= 8 if sampler == "nsga2" else num_distinct == 12


@pytest.mark.slow
def test_pruned_searches_end_early_and_failed_ones_are_told(tmp_path: Path) -> None:
    rates = {"choices": [0.05, 0.1, 1e30, 1e-12, 2e-12, 0.2, 3e-12, 0.15]}
    content = make_study(space={"weight_lr": rates}, pruning="asha", budget={"num_trials": 12})
    content["base"] = content["base"] | {"num_epochs": 6, "max_train_images": 400}
    path, out = write_study(tmp_path, content), tmp_path / "out"
    done = tfnas("launch", str(path), "--out", str(out))
    trials = load(out).get_trials()
    assert len(trials) == 12
    counts = Counter(trial.state for trial in trials)
    assert set(counts) <= {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}
    assert counts[TrialState.PRUNED] > 0
    assert done.returncode == (1 if counts[TrialState.FAIL] else 0), done.stdout + done.stderr
    for trial in trials:
        if trial.params["weight_lr"] == 1e30:
            assert "DivergedError" in trial.user_attrs["failure"]
    reasons = [run.data.tags.get("tfnas.failure", "") for run in runs_of(out, "search")]
    assert any(reason.startswith("pruned after epoch ") for reason in reasons)
    pruned = [
        journal for journal in journals(out).values() if journal.end and journal.end.outcome == "PRUNED"
    ]
    assert all(1 < max(journal.epochs) < 6 for journal in pruned)
