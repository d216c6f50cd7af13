from pathlib import Path

import pandas as pd
import pytest

from analysis.figures import make_drawings
from analysis.reading.experiment import Experiment
from analysis.reading.experiment_reader import read_experiment
from analysis.reading.store import tracking_uri_of
from nas.foundation.errors import UserError
from tests.support.synthetic import Store, grid, make_table


def test_a_cell_is_read_once_with_its_epochs_and_trajectory(experiment: Experiment):
    assert len(experiment.runs) == 8
    assert len({(run.config["sampling"], run.config["depth"], run.seed) for run in experiment.runs}) == 8
    for run in experiment.runs:
        assert run.trajectory is not None
        assert run.epochs is not None
        assert len(run.epochs) == len(run.trajectory.epoch_E) == 16
        assert run.epochs["val_accuracy"].iloc[-1] == pytest.approx(run.metrics["val_accuracy"])


def test_factors_are_the_fields_that_differ(experiment: Experiment):
    assert experiment.factors == ("sampling", "depth")
    names = [run.name for run in experiment.runs]
    assert names[:3] == ["single-skip-s0", "single-skip-s1", "single-sink-s0"]


def test_values_have_their_types_again(experiment: Experiment):
    config = experiment.runs[0].config
    assert config["target_latency_ms"] == 1.0
    assert config["elasticity"] is True
    assert config["data_dir"] is None
    assert isinstance(config["num_epochs"], int)


def test_failed_and_unfinished_cells_are_missing_with_a_notice(experiment: Experiment):
    assert {(run.name, run.status) for run in experiment.missing} == {
        ("bi_random-skip-s3", "FAILED"),
        ("single-skip-s3", "RUNNING"),
    }
    assert any(
        "bi_random-skip-s3" in notice and "loss is not finite" in notice for notice in experiment.notices
    )


def test_runs_of_other_tables_or_results_versions_are_left_out_with_a_notice(experiment: Experiment):
    left_out = [notice for notice in experiment.notices if "left out: table" in notice]
    assert len(left_out) == 2
    assert all("--table" in notice for notice in left_out)
    assert {run.basis for run in experiment.runs} == {experiment.basis}


def test_another_table_can_be_asked_for(store: Store):
    fingerprint = make_table(scale=2.0).fingerprint
    experiment = read_experiment("demo", store.tracking_uri, table=fingerprint[:6])
    assert [run.name for run in experiment.runs] == ["bi_random-sink-s0"]
    with pytest.raises(UserError, match="no finished run of these"):
        read_experiment("demo", store.tracking_uri, table="no such")


def test_a_run_of_an_older_version_says_what_it_lacks(store: Store):
    experiment = read_experiment("demo", store.tracking_uri, code_version="unknown")
    (run,) = experiment.runs
    assert run.trajectory is None
    assert run.epochs is None
    assert run.problem is not None
    assert "derived_op_EL" in run.problem
    assert "metrics.csv is missing" in run.problem
    assert "0.0.1" in run.problem
    assert "health" not in run.problem, "searches were not always checked"
    assert (run.health, run.is_healthy) == (None, None)


def test_an_unknown_experiment_is_answered_with_the_nearest_names(store: Store):
    with pytest.raises(UserError, match="'dmeo': there is none; the nearest names: demo"):
        read_experiment("dmeo", store.tracking_uri)


def test_a_folder_without_a_store_is_refused_and_stays_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(UserError, match="no MLflow store"):
        tracking_uri_of(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"not a database at all, but long enough to be read"])
def test_a_file_that_is_no_store_is_refused_and_stays_as_it_is(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mlflow.db").write_bytes(content)
    with pytest.raises(UserError, match="not an MLflow store"):
        tracking_uri_of(tmp_path)
    assert (tmp_path / "mlflow.db").read_bytes() == content


def test_a_damaged_store_is_refused_in_one_line(store: Store, tmp_path: Path):
    content = bytearray((store.out_dir / "mlflow.db").read_bytes())
    content[100:] = b"x" * (len(content) - 100)
    (tmp_path / "mlflow.db").write_bytes(content)
    with pytest.raises(UserError, match="cannot read this MLflow store") as refusal:
        read_experiment("demo", tracking_uri_of(tmp_path))
    assert "\n" not in str(refusal.value)


def test_the_environment_names_another_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert tracking_uri_of(tmp_path) == "http://127.0.0.1:1"


def test_an_experiment_without_a_finished_run_is_refused(tmp_path: Path):
    store = Store(tmp_path, "nothing yet")
    store.add({"target_latency_ms": 1.0, "seed": 0}, ["seed"], status="RUNNING")
    with pytest.raises(UserError, match=r"no finished search .*1 RUNNING"):
        read_experiment("nothing yet", store.tracking_uri)


def test_the_newest_finished_run_of_a_cell_is_read(tmp_path: Path):
    store = Store(tmp_path, "again")
    cells = grid(seed=[0, 1])
    store.add_grid({"target_latency_ms": 1.0}, cells)
    newer = store.add({"target_latency_ms": 1.0, "seed": 1}, ["seed"])
    store.add({"target_latency_ms": 1.0, "seed": 1}, ["seed"], status="FAILED", failure="killed")
    experiment = read_experiment("again", store.tracking_uri)
    assert len(experiment.runs) == 2
    assert experiment.runs[1].run_id == newer
    assert not experiment.missing
    assert "1 run left out: a newer run of the same cell is used" in experiment.notices


def test_the_table_and_the_derived_network_of_a_run_are_read(experiment: Experiment):
    table, architecture = experiment.table, experiment.runs[0].architecture
    assert table is not None
    assert table.fingerprint == experiment.basis.table_fingerprint
    assert architecture is not None
    assert architecture.depth == (experiment.runs[0].trajectory.derived_op_EL[-1] >= 0).sum()


@pytest.mark.parametrize("damage", ["truncated", "flipped", "text"])
def test_a_damaged_trajectory_costs_its_run_the_figures_that_need_it_and_no_other(
    damage: str, tmp_path: Path
):
    store = Store(tmp_path, "damaged")
    ids = store.add_grid(
        {"target_latency_ms": 1.0, "num_epochs": 4, "num_warmup_epochs": 1}, grid(seed=[0, 1])
    )
    (path,) = (tmp_path / "mlartifacts").glob(f"{ids[0]}/**/trajectory.npz")
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        content = content[: len(content) // 2]
    elif damage == "flipped":
        content[len(content) // 3] ^= 0xFF
    else:
        content = bytearray(b"not an archive")
    path.write_bytes(content)
    damaged, sound = read_experiment("damaged", store.tracking_uri).runs
    assert damaged.trajectory is None
    assert "trajectory.npz" in str(damaged.problem)
    assert damaged.epochs is not None
    assert sound.problem is None


def test_the_health_of_each_search_is_read(experiment: Experiment):
    for run in experiment.runs:
        assert run.health is not None
        assert [check.name for check in run.health] == ["latency", "alphas"]
        # As `Search.health` makes them up: all targets are met, and single paths do not move alphas.
        assert run.is_healthy is (run.config["sampling"] == "bi_random")


@pytest.mark.parametrize("content", ["", "[]", '[{"name": "depth"}]', '{"healthy": true}'])
def test_a_damaged_health_record_is_a_problem_of_its_run_and_of_nothing_else(content: str, tmp_path: Path):
    store = Store(tmp_path, "damaged")
    base = {"target_latency_ms": 1.0, "num_epochs": 4, "num_warmup_epochs": 1}
    ids = store.add_grid(base, grid(seed=[0, 1]))
    (path,) = (tmp_path / "mlartifacts").glob(f"{ids[0]}/**/health.json")
    path.write_text(content)
    damaged, sound = read_experiment("damaged", store.tracking_uri).runs
    assert damaged.health is None
    assert str(damaged.problem).startswith("health.json: not the health checks of a search")
    assert damaged.trajectory is not None
    assert sound.health is not None
    assert sound.problem is None


def test_metrics_of_an_older_version_are_read_as_far_as_they_go(tmp_path: Path):
    store = Store(tmp_path, "older")
    store.add({"target_latency_ms": 1.0, "num_epochs": 4, "num_warmup_epochs": 1, "seed": 0}, ["seed"])
    (path,) = (tmp_path / "mlartifacts").glob("*/**/metrics.csv")
    pd.read_csv(path).drop(columns=["redundant_encoding", "train_loss"]).to_csv(path, index=False)
    experiment = read_experiment("older", store.tracking_uri)
    (run,) = experiment.runs
    assert run.problem is not None
    assert run.problem.startswith("metrics.csv lacks train_loss, redundant_encoding")
    assert run.epochs is not None
    assert run.epochs["val_accuracy"].notna().all()
    names = {drawing.name for drawing in make_drawings(experiment)[0]}
    assert {"learning", "elasticity", "depth"} <= names
