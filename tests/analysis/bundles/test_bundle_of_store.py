"""A bundle of the store of all tests of reading: it stands for the store, without MLflow."""

import json
from pathlib import Path
from zipfile import ZipFile

import pytest
from click.testing import CliRunner, Result

from analysis.bundles.bundle_store import BundleStore
from analysis.bundles.bundle_writer import write_bundle
from analysis.reading.experiment import Experiment
from analysis.reading.experiment_reader import read_experiment
from analysis.reading.store import MlflowStore
from analysis.report.run_comparison import compare_runs, find_run
from analysis.writing.stamp import run_stamp
from experiments.cli.results.health_command import health
from experiments.cli.results.report_command import report
from nas.foundation.errors import UserError
from tests.support.synthetic import Store


@pytest.fixture(scope="module")
def bundle(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "demo.bundle"
    content, unreadable = write_bundle("demo", MlflowStore(store.tracking_uri))
    # The store has a run that is older than an array of trajectories.
    assert [line.partition(": trajectory.npz: ")[1] != "" for line in unreadable] == [True]
    path.write_bytes(content)
    return path


def test_the_same_results_give_the_same_bytes(store: Store, bundle: Path) -> None:
    assert write_bundle("demo", MlflowStore(store.tracking_uri))[0] == bundle.read_bytes()


def test_no_file_in_it_names_the_folder_of_the_launch(store: Store, bundle: Path) -> None:
    with ZipFile(bundle) as archive:
        naming = [name for name in archive.namelist() if str(store.out_dir).encode() in archive.read(name)]
    assert naming == []


@pytest.mark.parametrize("all_runs", [False, True])
def test_an_experiment_is_read_from_it_as_from_mlflow(store: Store, bundle: Path, all_runs: bool) -> None:
    found = read_experiment("demo", BundleStore.open(bundle), all_runs=all_runs)
    expected = read_experiment("demo", store.tracking_uri, all_runs=all_runs)
    assert [run_stamp(run) for run in found.cells] == [run_stamp(run) for run in expected.cells]
    assert (found.notices, found.basis, found.table) == (expected.notices, expected.basis, expected.table)
    here = [{**run.config, "latency_table": "latency_table.json"} for run in expected.cells]
    assert [run.config for run in found.cells] == here


def test_its_figures_tables_and_verdicts_are_those_of_mlflow_byte_for_byte(
    store: Store, bundle: Path, reported: Result, tmp_path: Path
) -> None:
    done = CliRunner().invoke(report, ["--from", str(bundle), "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert done.output.replace(str(tmp_path), "") == reported.output.replace(str(store.out_dir), "")
    for folder in ("figures", "tables"):
        made, expected = (
            {path.name: path.read_bytes() for path in (root / folder).iterdir()}
            for root in (tmp_path, store.out_dir)
        )
        assert made == expected
    assert "MLflow" not in (tmp_path / "report.html").read_text()


def test_health_and_comparison_are_those_of_mlflow(
    store: Store, bundle: Path, experiment: Experiment
) -> None:
    found = CliRunner().invoke(health, ["--from", str(bundle), "--json"])
    expected = CliRunner().invoke(health, ["demo", "--out", str(store.out_dir), "--json"])
    assert json.loads(found.stdout) == json.loads(expected.stdout)
    names = [run.run_id[:12] for run in experiment.runs[:2]]
    one, other = (
        compare_runs(*(find_run(name, runs) for name in names))
        for runs in (BundleStore.open(bundle), MlflowStore(store.tracking_uri))
    )
    for part in ("provenance", "config", "numbers", "layers"):
        assert getattr(one, part) == getattr(other, part)


def test_it_keeps_people_hosts_and_folders_to_itself(bundle: Path) -> None:
    kept = {name for record in BundleStore.open(bundle).record.runs for name in record.tags}
    assert "tfnas.cell" in kept
    assert not kept & {"mlflow.user", "mlflow.source.name", "tfnas.out", "tfnas.host"}


def test_another_experiment_or_run_is_not_in_it(bundle: Path) -> None:
    with pytest.raises(UserError, match="holds experiment 'demo', not 'other'"):
        read_experiment("other", BundleStore.open(bundle))
    with pytest.raises(UserError, match="there is none"):
        find_run("no such run", BundleStore.open(bundle))
