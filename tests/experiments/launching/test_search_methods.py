"""One grid of all search methods, from launch to report, and what it leaves in MLflow."""

import io
import json
import re
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient
from scipy.stats import kendalltau

from analysis.bundles.archive import to_json, unpack
from analysis.bundles.bundle_store import BundleStore
from analysis.bundles.verification import verify
from analysis.figures import make_drawings
from analysis.figures.evaluations_figure import best_so_far, seconds_of
from analysis.figures.oracle_figure import regret_drawings
from analysis.measures import measure_runs, oracle_regret
from analysis.reading.experiment import Experiment
from analysis.reading.experiment_reader import read_experiment
from analysis.reading.nothing_to_draw import OutOfPlaceError
from analysis.tables.budget_table import budget_table
from nas.oracle.space_oracle import SpaceOracle
from nas.space.architecture import Architecture
from nas.space.enumeration import all_architectures, operator_code
from nas.space.macro_space import NANO
from tests.support.bundles import seal
from tests.support.command import tfnas
from tests.support.study_files import BASE
from tests.support.tiny import make_dense_table

METHODS = ("tf_nas", "random", "gp_nas")
NUM_EVALUATIONS = 20
NETWORKS = list(all_architectures(NANO))
TABLE = make_dense_table(NANO)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a launch of each method on `nano`."""
    folder = tmp_path_factory.mktemp("methods")
    TABLE.save(folder / "table.json")
    base = BASE | {"space": "nano", "elasticity": False, "num_evaluations": NUM_EVALUATIONS}
    spec = {
        "experiment": "methods",
        "base": base,
        "grid": {"method": list(METHODS)},
        "resources": {"max_concurrent_trials": 1},
    }
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
        assert run.architecture == run.evaluations.loc[best, "architecture"]
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


@pytest.fixture
def oracle(monkeypatch: pytest.MonkeyPatch) -> SpaceOracle:
    """Made up: no two networks are worth the same."""
    accuracies_N = np.random.default_rng(0).permutation(np.linspace(0.7, 0.9, len(NETWORKS)))
    codes = tuple(operator_code(network, NANO) for network in NETWORKS)
    made_up = SpaceOracle(
        "nano", "fashion_mnist_subset", codes, accuracies_N[:, None], np.ones(len(NETWORKS)), {}
    )
    monkeypatch.setattr(oracle_regret, "load_oracle", {"nano": made_up}.get)
    return made_up


def test_what_searches_found_is_judged_by_the_oracle_under_their_own_table_and_target(
    experiment: Experiment, oracle: SpaceOracle
) -> None:
    latencies_ms = [TABLE.latency_ms(network) for network in NETWORKS]
    for run in experiment.runs:
        number = NETWORKS.index(run.architecture)
        allowed_ms = max(run.config["target_latency_ms"], latencies_ms[number])
        best = max(
            oracle.accuracies_N[other] for other, ms in enumerate(latencies_ms) if ms <= allowed_ms + 1e-9
        )
        numbers = measure_runs(experiment)[run.run_id]
        assert numbers["oracle_accuracy"] == oracle.accuracies_N[number]
        assert numbers["oracle_regret"] == pytest.approx(best - oracle.accuracies_N[number])
        by_epoch = oracle_regret.regret_by_epoch(run, experiment)
        assert len(by_epoch) == len(run.epochs)
        assert by_epoch[-1] == pytest.approx(numbers["oracle_regret"])


def test_the_ranking_of_a_supernet_is_compared_with_the_oracles(
    experiment: Experiment, oracle: SpaceOracle
) -> None:
    for run in experiment.runs:
        tau = measure_runs(experiment)[run.run_id]["supernet_tau"]
        if run.evaluations is None:
            assert np.isnan(tau)
            continue
        truths = [oracle.accuracies_N[NETWORKS.index(each)] for each in run.evaluations["architecture"]]
        assert tau == pytest.approx(kendalltau(truths, run.evaluations["val_accuracy"]).statistic)


def test_regret_by_epoch_is_drawn_up_to_the_longest_search_with_what_no_method_searches_in_gray(
    experiment: Experiment, oracle: SpaceOracle
) -> None:
    (drawing,) = regret_drawings(experiment)
    (axes,) = (axes for axes in drawing.draw().axes if axes.get_lines())
    left, right = axes.get_xlim()
    assert right == BASE["num_epochs"] + NUM_EVALUATIONS // 10 + 0.5
    (gray,) = axes.patches
    assert (gray.get_bbox().x0, gray.get_bbox().x1) == (left, BASE["num_warmup_epochs"] + 0.5)
    assert 0 < gray.get_bbox().width < 1


@pytest.mark.parametrize("field", ["dataset", "elasticity"])
def test_the_oracle_of_other_images_or_widths_does_not_judge(
    experiment: Experiment, oracle: SpaceOracle, field: str
) -> None:
    other = {"dataset": "cifar10", "elasticity": True}[field]
    runs = tuple(replace(run, config={**run.config, field: other}) for run in experiment.runs)
    with pytest.raises(OutOfPlaceError):
        regret_drawings(replace(experiment, runs=runs))
    assert np.isnan(oracle_regret.oracle_regret(runs[0], experiment))


# A bundle of the launch


@pytest.fixture(scope="module")
def bundle(out: Path) -> Path:
    done = tfnas("bundle", "methods", "--out", str(out))
    assert done.returncode == 0, done.stderr
    return out / "methods.bundle"


def test_a_bundle_of_the_launch_agrees_with_itself_and_with_searches_that_are_repeated(
    bundle: Path,
) -> None:
    done = tfnas("verify", str(bundle), "--rerun", "1", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    (result,) = json.loads(done.stdout)
    assert not any(check["disagreements"] for check in result["checks"])
    assert all(check["num_compared"] for check in result["checks"] if "trained" not in check["title"])
    (repeated,) = result["repeated"]
    assert "equal bit for bit" in repeated["finding"]


def test_a_bundle_has_the_yaml_file_as_registered(bundle: Path, out: Path) -> None:
    store = BundleStore.open(bundle)
    (launch,) = [run for run in store.read_experiment("methods").runs if run.kind == "launch"]
    content = store.content_of(launch.run_id, "spec.yaml")
    assert content is not None
    assert content.decode() == (out.parent / "spec.yaml").read_text()


def edited(content: bytes, old: str, new: str) -> bytes:
    text = content.decode()
    assert old in text
    return text.replace(old, new, 1).encode()


def with_other_alphas(content: bytes) -> bytes:
    with np.load(io.BytesIO(content)) as file:
        arrays = dict(file)
    alpha_LO = arrays["alpha_ELO"][-1]
    arrays["alpha_ELO"][-1] = np.where(np.isfinite(alpha_LO), -alpha_LO, alpha_LO)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def with_another_latency(content: bytes) -> bytes:
    epochs = pd.read_csv(io.BytesIO(content), index_col="epoch")
    epochs.loc[1, "derived_latency_ms"] *= 1.01
    return epochs.to_csv().encode()


def with_other_widths(content: bytes) -> bytes:
    network = Architecture.model_validate_json(content)
    widths = [width - 1 for _, _, width in network.layers]
    return network.with_widths(widths).model_dump_json(exclude_none=True).encode()


# What is changed, the end of its path, how, and which quantity must be named.
TAMPERINGS = {
    "a trajectory": ("bi_random-*/trajectory.npz", with_other_alphas, "operators and depths"),
    "a latency": ("bi_random-*/metrics.csv", with_another_latency, "derived_latency_ms[0]"),
    "an evaluated network": (
        "random-*/evaluations.csv",
        lambda content: re.sub(rb"\n1,(\d+),[^,]*,", rb"\n1,\1,0.5,", content, count=1),
        "latencies of evaluated networks",
    ),
    "a derived network": ("gp_nas-*/architecture.json", with_other_widths, "derived network"),
    "a verdict": (
        "results/verdicts.json",
        lambda content: edited(content, '"status": "', '"status": "supported'),
        "verdict.status",
    ),
    "a measure": (
        "results/measures.json",
        lambda content: re.sub(rb'"derived_depth": \d', rb'"derived_depth": 99', content, count=1),
        "measure.derived_depth",
    ),
    "a table": (
        "results/tables/budget.csv",
        lambda content: re.sub(rb",(\d)", rb",9\1", content, count=1),
        "row",
    ),
    "a config": (
        "runs.json",
        lambda content: re.sub(rb'"weight_lr": [\d.]+', b'"weight_lr": 0.123', content, count=1),
        "cell",
    ),
    "a registered claim": (
        "registration.json",
        lambda content: edited(content, '"smallest_effect": ', '"smallest_effect": 1'),
        "hash of the registration",
    ),
}


@pytest.mark.parametrize("what", TAMPERINGS)
def test_what_is_changed_in_a_bundle_is_found_and_named(what: str, bundle: Path, tmp_path: Path) -> None:
    pattern, change, expected = TAMPERINGS[what]
    files = unpack(bundle)
    (path,) = [path for path in files if fnmatch(path, f"*{pattern}")]
    changed = change(files[path])
    assert changed != files[path]
    (tmp_path / "changed.bundle").write_bytes(seal(files | {path: changed}))
    found = [
        str(one)
        for check in verify(BundleStore.open(tmp_path / "changed.bundle"))
        for one in check.disagreements
    ]
    assert any(f": {expected}" in one for one in found), found


def test_a_bundle_that_disagrees_gives_exit_code_1(bundle: Path, tmp_path: Path) -> None:
    files = unpack(bundle)
    pattern, change, _ = TAMPERINGS["a verdict"]
    (tmp_path / "changed.bundle").write_bytes(seal(files | {pattern: change(files[pattern])}))
    done = tfnas("verify", str(tmp_path / "changed.bundle"))
    assert done.returncode == 1
    assert "DISAGREE" in done.stdout


def test_a_search_on_images_that_are_not_there_is_not_repeated(bundle: Path, tmp_path: Path) -> None:
    files = unpack(bundle)
    records = json.loads(files["runs.json"])
    for run in records["runs"]:
        run["config"] |= {"dataset": "fashion_mnist", "data_dir": "/no/such/folder"} if run["config"] else {}
    (tmp_path / "moved.bundle").write_bytes(seal(files | {"runs.json": to_json(records)}))
    done = tfnas("verify", str(tmp_path / "moved.bundle"), "--rerun", "1")
    assert (done.returncode, done.stdout) == (2, "")
    assert "/no/such/folder" in done.stderr
    assert len(done.stderr.splitlines()) == 1
