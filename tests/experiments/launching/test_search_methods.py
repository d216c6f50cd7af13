"""One grid of all search methods, from launch to report, and what it leaves in MLflow."""

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient

from analysis.figures import make_drawings
from analysis.figures.evaluations_figure import best_so_far, seconds_of
from analysis.measures import measure_runs
from analysis.reading.experiment import Experiment
from analysis.reading.experiment_reader import read_experiment
from analysis.tables.budget_table import budget_table
from analysis.verdicts import judge
from nas.space.architecture import Architecture
from nas.space.macro_space import NANO
from tests.experiments.launching.test_launch import tfnas
from tests.support.study_files import BASE
from tests.support.tiny import make_dense_table

METHODS = ("tf_nas", "random", "gp_nas")
NUM_EVALUATIONS = 20


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a launch of each method on `nano`."""
    folder = tmp_path_factory.mktemp("methods")
    table = make_dense_table(NANO)
    table.save(folder / "table.json")
    base = BASE | {"space": "nano", "elasticity": False, "num_evaluations": NUM_EVALUATIONS}
    spec = {"experiment": "methods", "base": base, "grid": {"method": list(METHODS)}}
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec))
    done = tfnas("launch", str(folder / "spec.yaml"), "--out", str(folder / "out"))
    assert done.returncode == 0, done.stderr
    return folder / "out"


@pytest.fixture(scope="module")
def experiment(out: Path) -> Experiment:
    return read_experiment("methods", f"sqlite:///{out / 'mlflow.db'}")


def test_each_method_has_one_run_with_an_epoch_for_each_round(experiment: Experiment) -> None:
    num_epochs = BASE["num_epochs"]
    found = {run.config["method"]: len(run.epochs) for run in experiment.runs if run.epochs is not None}
    num_rounds = NUM_EVALUATIONS // 10
    expected = {"tf_nas": num_epochs, "random": num_epochs + num_rounds, "gp_nas": num_epochs + num_rounds}
    assert found == expected


def test_a_run_has_every_evaluated_network_as_a_table(out: Path, experiment: Experiment) -> None:
    client = MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    for run in experiment.runs:
        names = {entry.path for entry in client.list_artifacts(run.run_id)}
        assert ("evaluations.csv" in names) == (run.config["method"] != "tf_nas")
        if run.evaluations is None:
            continue
        assert run.evaluations.index.tolist() == list(range(1, NUM_EVALUATIONS + 1))
        best = run.evaluations["val_accuracy"].idxmax()
        network = Architecture.model_validate(json.loads(run.evaluations.loc[best, "architecture"]))
        assert run.architecture == network
        assert run.metrics["val_accuracy"] == run.evaluations.loc[best, "val_accuracy"]


def test_random_and_gp_nas_share_their_training(out: Path) -> None:
    assert len(list((out / "warmups").iterdir())) == 2


def test_the_best_so_far_never_falls_and_time_never_stands_still(experiment: Experiment) -> None:
    for run in experiment.runs:
        if run.evaluations is None:
            continue
        assert best_so_far(run)[-1] == run.metrics["val_accuracy"]
        seconds = pd.Series(seconds_of(run))
        assert seconds.is_monotonic_increasing
        assert seconds.iloc[-1] == pytest.approx(run.epochs["epoch_seconds"].sum())


def test_budgets_state_weight_steps_evaluations_and_seconds_of_each_method(experiment: Experiment) -> None:
    table = budget_table(experiment, measure_runs(experiment))
    names = [column.name for column in table.columns]
    rows = {row[0]: dict(zip(names, row, strict=True)) for row in table.rows}
    assert set(rows) == set(METHODS)
    assert len({row["num_weight_steps"] for row in rows.values()}) == 1
    assert [rows[method]["num_evaluations"] for method in METHODS] == [0, 20, 20]
    assert all(row["seconds"] > 0 for row in rows.values())


def test_figures_of_evaluations_are_drawn(experiment: Experiment) -> None:
    drawings, _ = make_drawings(experiment)
    names = {drawing.name for drawing in drawings}
    assert {"best", "prediction"} <= names
    for drawing in drawings:
        drawing.draw()


def test_the_claims_about_methods_wait_for_trainings(experiment: Experiment) -> None:
    verdicts = {verdict.name: verdict.status for verdict in judge(experiment, measure_runs(experiment))}
    assert verdicts["f"] == verdicts["g"] == "pending"
    assert verdicts["b"] == "not asked"
