"""Whole launches: the real command, Ray, searches and MLflow."""

import csv
import hashlib
import json
import re
import shutil
import sys
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
import yaml
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Run

from analysis.reading.experiment_reader import read_experiment
from experiments.cells.cell_folder import CellFolder, RunDescription
from experiments.cli import main as cli
from experiments.cli.launches.launch_command import claims_of
from experiments.launching import dry_run
from experiments.launching.grid_record import CLAIMS_TAG, GridRecord
from experiments.specs.experiment_spec import load_spec
from experiments.specs.grid_file import load_grid
from experiments.tracking.notes import NOTE_TAG
from experiments.tracking.tracked_cells import REGISTERS_TAG, REGISTRATION_FILE, REGISTRATION_TAG
from experiments.tracking.tracker import Tracker
from nas.config import SearchConfig
from nas.foundation.identity import fingerprint
from nas.latency.table import LatencyTable
from nas.search.records import METRIC_NAMES, Trajectory
from nas.search.search import run_search
from nas.search.search_identity import RESULTS_VERSION
from nas.space.architecture import Architecture
from nas.space.macro_space import get_space
from tests.support.command import tfnas
from tests.support.study_files import BASE
from tests.support.tiny import make_dense_table

DIVERGES, LEARNS = 1e30, 0.05


def write_spec(folder: Path, grid: dict[str, Any], experiment: str = "tested") -> Path:
    path = folder / "spec.yaml"
    # A second process for trials takes as long to start as they do to run.
    resources = {"max_concurrent_trials": 1}
    content = {"experiment": experiment, "base": BASE, "grid": grid, "resources": resources}
    path.write_text(yaml.safe_dump(content))
    return path


def runs_of(out: Path, kind: str, experiment: str = "tested") -> list[Run]:
    client = MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    found = client.get_experiment_by_name(experiment)
    return list(client.search_runs([found.experiment_id], f"tags.`tfnas.kind` = '{kind}'"))


def runs_in(tracker: Tracker) -> list[Run]:
    return list(MlflowClient(tracker.uri).search_runs([tracker.experiment_id]))


Launched = tuple[Path, CompletedProcess[str]]


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Launched:
    """The output folder of a launch with one search that learns and one that diverges."""
    folder = tmp_path_factory.mktemp("launch")
    make_dense_table(get_space("micro")).save(folder / "table.json")
    spec = write_spec(folder, {"weight_lr": [DIVERGES, LEARNS]})
    return folder, tfnas("launch", str(spec), "--out", str(folder / "out"))


def test_a_search_that_diverges_fails_alone_and_is_listed(launched: Launched) -> None:
    folder, done = launched
    assert done.returncode == 1, done.stderr
    assert "1 of 2 searches are finished" in done.stdout
    assert re.search(
        f"weight_lr={re.escape(str(DIVERGES))}-.*: DivergedError: epoch 1: train_loss is", done.stdout
    )
    runs = {run.data.params["weight_lr"]: run for run in runs_of(folder / "out", "search")}
    assert {rate: run.info.status for rate, run in runs.items()} == {"1e+30": "FAILED", "0.05": "FINISHED"}
    assert "train_loss is" in runs["1e+30"].data.tags["tfnas.failure"]


def test_a_finished_run_has_all_epochs_params_tags_and_artifacts(launched: Launched) -> None:
    folder, _ = launched
    client = MlflowClient(f"sqlite:///{folder / 'out' / 'mlflow.db'}")
    (run,) = (run for run in runs_of(folder / "out", "search") if run.info.status == "FINISHED")
    (launch,) = runs_of(folder / "out", "launch")
    assert run.data.tags["mlflow.parentRunId"] == launch.info.run_id
    assert run.data.tags["factor.weight_lr"] == "0.05"
    assert run.data.params["num_epochs"] == str(BASE["num_epochs"])
    for name in METRIC_NAMES:
        steps = [entry.step for entry in client.get_metric_history(run.info.run_id, name)]
        assert steps == ([2] if name == "arch_loss" else [1, 2]), name
    artifacts = Path(client.download_artifacts(run.info.run_id, ""))
    assert Trajectory.load(artifacts / "trajectory.npz").epoch_E.tolist() == [1, 2]
    table = LatencyTable.load(artifacts / "latency_table.json")
    latency_ms = table.latency_ms(Architecture.load(artifacts / "architecture.json"))
    assert latency_ms == run.data.metrics["derived_latency_ms"]
    assert yaml.safe_load((artifacts / "config.yaml").read_text())["weight_lr"] == LEARNS


def test_a_launch_links_to_its_searches_and_describes_itself_in_mlflow(launched: Launched) -> None:
    folder, done = launched
    uri = f"sqlite:///{folder / 'out' / 'mlflow.db'}"
    assert f"mlflow ui --backend-store-uri {uri}\n" in done.stdout
    experiment = MlflowClient(uri).get_experiment_by_name("tested")
    page = (
        f"http://127.0.0.1:5000/#/experiments/{experiment.experiment_id}/runs?workflowType=machine_learning"
    )
    assert f"{page}&viewStateShareKey=tfnas-search\n" in done.stdout
    assert "mlflow.sharedViewState.tfnas-search" in experiment.tags
    (launch,) = runs_of(folder / "out", "launch")
    for tags in (launch.data.tags, experiment.tags):
        assert "`spec.yaml`: 1 of 2 searches are finished, 0 of 1 searches are healthy." in tags[NOTE_TAG]


def test_the_health_of_a_finished_search_is_told_on_the_screen_in_its_tags_and_its_artifacts(
    launched: Launched,
) -> None:
    folder, done = launched
    client = MlflowClient(f"sqlite:///{folder / 'out' / 'mlflow.db'}")
    runs = {run.info.status: run for run in runs_of(folder / "out", "search")}
    run = runs["FINISHED"]
    path = client.download_artifacts(run.info.run_id, "health.json")
    checks = json.loads(Path(path).read_text())
    findings = [check for check in checks if not check["is_healthy"]]
    # Two epochs are too few for the temperature to fall at all, and for six warm-up steps to reach everybody.
    assert {"temperature", "warmup"} <= {check["name"] for check in findings}
    assert run.data.metrics["num_health_findings"] == len(findings)
    names = ", ".join(check["name"] for check in findings)
    assert run.data.tags["tfnas.health"] == f"unhealthy: {names}"
    assert all(check["remedy"] in run.data.tags["tfnas.health_findings"] for check in findings)
    prefix = f"{run.info.run_name}: finished; unhealthy: "
    said = [line.removeprefix(prefix) for line in done.stdout.splitlines() if line.startswith(prefix)]
    assert said == [f"{check['finding']}; {check['remedy']}" for check in findings]
    out = folder / "out"
    assert "Health: 0 of 1 searches are healthy" in done.stdout
    assert f"tfnas health tested --out {out}" in done.stdout
    assert not [tag for tag in runs["FAILED"].data.tags if tag.startswith("tfnas.health")]


def registrations_of(out: Path) -> list[tuple[Run, dict[str, Any]]]:
    """The launches that registered something, the first one first, and what they registered."""
    client = MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    launches = sorted(runs_of(out, "launch"), key=lambda run: run.info.start_time)
    return [
        (
            launch,
            json.loads(Path(client.download_artifacts(launch.info.run_id, REGISTRATION_FILE)).read_text()),
        )
        for launch in launches
        if REGISTRATION_TAG in launch.data.tags
    ]


def test_the_grid_is_registered_before_its_first_trial(launched: Launched) -> None:
    folder, _ = launched
    ((launch, content),) = registrations_of(folder / "out")
    searches = runs_of(folder / "out", "search")
    assert set(content["cells"]) == {run.data.tags["tfnas.cell"] for run in searches}
    assert [cell["fields"] for cell in content["cells"].values()] == [
        {"weight_lr": DIVERGES},
        {"weight_lr": LEARNS},
    ]
    (path,) = (folder / "out" / "mlartifacts").glob(f"{launch.info.run_id}/**/{REGISTRATION_FILE}")
    registered_ms = path.stat().st_mtime_ns / 1e6
    assert launch.info.start_time <= registered_ms
    assert registered_ms < min(run.info.start_time for run in searches)
    assert launch.data.tags[REGISTRATION_TAG] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert launch.data.tags[REGISTERS_TAG] == "search"
    assert launch.data.tags[CLAIMS_TAG] == fingerprint(content["claims"])
    assert str(folder) not in path.read_text(), "paths of this machine are no settings"


def test_an_experiment_in_the_same_folder_gets_the_searches_of_its_own_grid_alone(
    launched: Launched, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = launched
    spec = write_spec(folder, {"weight_lr": [LEARNS]}, experiment="other")
    assert tfnas_here(monkeypatch, "launch", str(spec), "--out", str(folder / "out")) == 0
    (shared,) = runs_of(folder / "out", "search", experiment="other")
    learned, _ = sorted(runs_of(folder / "out", "search"), key=lambda run: run.info.status, reverse=True)
    assert learned.info.status == "FINISHED"
    assert shared.data.tags["tfnas.cell"] == learned.data.tags["tfnas.cell"]
    assert shared.data.metrics == learned.data.metrics


def test_launching_again_runs_only_what_is_missing_though_the_folders_are_gone(launched: Launched) -> None:
    folder, _ = launched
    out = folder / "out"
    before = {run.info.run_id: run.info.end_time for run in runs_of(out, "search")}
    shutil.rmtree(out / "ray")
    shutil.rmtree(out / "cells")
    spec = write_spec(folder, {"weight_lr": [DIVERGES, LEARNS, 0.1]})
    status = tfnas("launch", str(spec), "--out", str(out), "--status")
    assert status.returncode == 0, status.stderr
    assert [word in status.stdout for word in ("finished", "failed", "missing")] == [True] * 3
    assert f"--out {out} --retry-failed" in status.stdout, "what to do next, ready to paste"
    as_json = tfnas("launch", str(spec), "--out", str(out), "--status", "--json")
    content = json.loads(as_json.stdout)
    states = {cell["state"]: cell for cell in content["cells"]}
    assert states.keys() == {"finished", "failed", "missing"}
    # MLflow knows them, though the folders are gone.
    (run,) = (run for run in runs_of(out, "search") if run.info.status == "FINISHED")
    assert states["finished"]["metrics"] == run.data.metrics
    assert f" {run.data.metrics['val_accuracy']:.3f} " in status.stdout
    assert content["out"] == str(out)
    assert not (out / "cells").exists()
    again = tfnas("launch", str(spec), "--out", str(out))
    assert again.returncode == 1, again.stderr
    assert "3 searches: 1 finished, 1 failed, 1 missing; 1 to run" in again.stdout
    assert "Health: 0 of 2 searches are healthy" in again.stdout
    runs = {run.info.run_id: run.info.end_time for run in runs_of(out, "search")}
    assert len(runs) == 3
    assert before.items() <= runs.items()
    assert sorted(run.info.status for run in runs_of(out, "search")) == ["FAILED", "FINISHED", "FINISHED"]
    assert [len(content["cells"]) for _, content in registrations_of(out)] == [2, 3]


def test_an_edit_that_leaves_nothing_to_run_is_registered_once(
    launched: Launched, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = launched
    out = folder / "out"
    num_before = len(registrations_of(out))
    spec = write_spec(folder, {"weight_lr": [LEARNS]})
    assert tfnas_here(monkeypatch, "launch", str(spec), "--out", str(out)) == 0
    assert "Registered this grid" in capsys.readouterr().out
    *before, (launch, content) = registrations_of(out)
    assert len(before) == num_before
    assert [cell["fields"] for cell in content["cells"].values()] == [{}]
    assert launch.info.status == "FINISHED"
    assert tfnas_here(monkeypatch, "launch", str(spec), "--out", str(out)) == 0
    assert "Registered" not in capsys.readouterr().out
    assert len(registrations_of(out)) == num_before + 1
    assert len(runs_of(out, "launch")) == num_before + 1
    experiment = read_experiment("tested", f"sqlite:///{out / 'mlflow.db'}")
    assert [run.config["weight_lr"] for run in experiment.runs] == [LEARNS]
    assert not experiment.missing


def test_a_folder_that_was_moved_is_read_where_it_is_and_goes_on_there(
    launched: Launched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = launched
    write_spec(folder, {"weight_lr": [LEARNS]})
    copy, moved = tmp_path / "copy", tmp_path / "moved"
    shutil.copytree(folder, copy)
    copy.rename(moved)
    before = {path.name for path in (folder / "out" / "mlartifacts").iterdir()}
    # The original is gone, or it might be read in place of the copy.
    folder.rename(tmp_path / "away")
    try:
        uri = f"sqlite:///{moved / 'out' / 'mlflow.db'}"
        assert read_experiment("tested", uri).is_read
        spec = write_spec(moved, {"weight_lr": [LEARNS, DIVERGES]})
        assert tfnas_here(monkeypatch, "launch", str(spec), "--out", str(moved / "out")) == 1
        assert "0 to run" in capsys.readouterr().out
        assert not folder.exists()
    finally:
        (tmp_path / "away").rename(folder)
    (new,) = {path.name for path in (moved / "out" / "mlartifacts").iterdir()} - before
    assert list((moved / "out" / "mlartifacts" / new).glob(f"**/{REGISTRATION_FILE}"))
    # MLflow itself finds all files at the new place.
    for run in runs_of(moved / "out", "search"):
        assert run.info.artifact_uri.startswith(moved.as_uri())


def tfnas_here(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The command in this process: quicker where no search is run."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(sys, "argv", ["tfnas", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


def test_a_second_launch_into_the_same_folder_is_refused_while_one_is_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_dense_table(get_space("micro")).save(tmp_path / "table.json")
    spec = write_spec(tmp_path, {"seed": [0]})
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".lock"):
        assert tfnas_here(monkeypatch, "launch", str(spec), "--out", str(tmp_path / "out")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "another launch is running" in line
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]


def test_cells_that_a_launch_into_another_folder_is_going_to_run_are_not_run_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_dense_table(get_space("micro")).save(tmp_path / "table.json")
    spec = write_spec(tmp_path, {"seed": [0]})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'shared.db'}")
    grid = load_grid(spec)
    with grid.place(None) as place:
        (cell,) = grid.cells(tmp_path / "there", place, str)
    tracker = Tracker("tested", tmp_path / "there")
    record = GridRecord.of([cell], {}, spec.name)
    launch_id = tracker.start_launch("launch", spec.name, spec.read_text())
    tracker.register(launch_id, record.text, record.tags)
    monkeypatch.setattr(sys, "argv", ["tfnas", "launch", str(spec), "--out", str(tmp_path / "here")])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"a launch into {tmp_path / 'there'}" in line
    assert cell.name in line
    assert launch_id in line
    assert not (tmp_path / "here" / "cells").exists()
    runs = {run.info.run_id: run for run in runs_in(tracker)}
    assert runs.pop(launch_id).info.status == "RUNNING"
    (refused,) = runs.values()
    assert refused.info.status == "KILLED"


def test_runs_of_two_sources_are_all_finished_and_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_dense_table(get_space("micro")).save(tmp_path / "table.json")
    out = tmp_path / "out"
    for source, seeds in (("a", [0]), ("b", [0, 1])):
        monkeypatch.setattr("experiments.specs.preparation.code_version", lambda source=source: source)
        grid = load_grid(write_spec(tmp_path, {"seed": seeds}))
        with grid.place(None) as place:
            *_, cell = grid.cells(out, place, str)
        folder = CellFolder.of(out, cell)
        folder.describe(RunDescription.of(cell))
        folder.artifacts.mkdir()
        folder.journal.start(None)
        folder.journal.finish("FINISHED")
    assert tfnas_here(monkeypatch, "launch", str(tmp_path / "spec.yaml"), "--out", str(out)) == 0
    said = capsys.readouterr().out.splitlines()
    assert "2 searches: 2 finished; 0 to run" in said
    (note,) = [line for line in said if line.startswith("note: ")]
    assert f"2 versions of the source and 1 set of libraries; results version {RESULTS_VERSION}" in note


def test_a_dry_run_tells_cells_and_reach_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_dense_table(get_space("micro")).save(tmp_path / "table.json")
    spec = write_spec(tmp_path, {"seed": [0, 1], "depth": ["sink", "skip"]})
    planned = []
    print_dry_run = dry_run.print_dry_run

    def keep(*arguments: Any, **options: Any) -> dict[str, Any]:
        planned.append(print_dry_run(*arguments, **options))
        return planned[0]

    monkeypatch.setattr(dry_run, "print_dry_run", keep)
    assert tfnas_here(monkeypatch, "launch", str(spec), "--out", str(tmp_path / "out"), "--dry-run") == 0
    said = capsys.readouterr().out
    assert "4 of 4 searches to run" in said
    assert "For the cost, add --measure: it times a few steps of 2 kinds of searches" in said
    assert said.count("50% of") == 4
    # 60 images of 10 classes, of which one in five is for architecture steps: rounded, one of each class.
    images = "Images: fashion_mnist_subset: 50 images for weight steps, 10 for architecture steps; 10 classes"
    assert said.count(images) == 1
    warnings = [line for line in said.splitlines() if line.startswith("warning: ")]
    assert [line for line in warnings if "5 in the last epoch; set final_temperature" in line]
    assert all(line.startswith("warning: 4 of 4 searches: ") for line in warnings)
    assert not (tmp_path / "out").exists()
    (content,) = planned
    assert content["file"] == "spec.yaml"
    assert len(content["cells"]) == 4


def test_measuring_goes_with_a_dry_run_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = write_spec(tmp_path, {"seed": [0]})
    for mode in ((), ("--status",)):
        arguments = ("launch", str(spec), "--out", str(tmp_path / "out"), "--measure", *mode)
        assert tfnas_here(monkeypatch, *arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("tfnas: --measure: ")
    assert not (tmp_path / "out").exists()


MINE = {
    "statement": "bi-sampling is more accurate",
    "measure": "val_accuracy",
    "baseline": {"sampling": "single"},
    "treated": {"sampling": "bi"},
    "direction": "greater",
    "smallest_effect": 0.01,
}


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"mine": MINE | {"baseline": {"sampling": "sinlge"}}}, "baseline.sampling: 'sinlge': did you mean"),
        ({"mine": MINE | {"baseline": {"sampling": "bi_random"}}}, "are the same"),
        ({"e": {"within": {"dpeth": "sink"}}}, "claims.e.within.dpeth: unknown field; did you mean 'depth'?"),
        ({"e": {"within": {"num_epochs": 1.5}}}, "claims.e.within.num_epochs: 1.5: "),
        ({"e": {"within": {"weight_lr": "1e-5"}}}, "claims.e.within.weight_lr: '1e-5': "),
        ({"e": {"smallest": 1}}, "claims.e.smallest: unknown field"),
        ({"mine": {name: MINE[name] for name in MINE if name != "measure"}}, "claims.mine.measure: missing"),
        ({"mine": None}, "mine"),
        ({"e": 1}, "claims.e: 1: "),
        (["e"], "claims: ['e']: "),
    ],
)
def test_a_claim_that_cannot_be_meant_is_refused_in_one_line_before_any_work(
    claims: Any,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spec = write_spec(tmp_path, {"seed": [0, 1]})
    spec.write_text(spec.read_text() + yaml.safe_dump({"claims": claims}))
    for mode in ((), ("--dry-run",)):
        arguments = ("launch", str(spec), "--out", str(tmp_path / "out"), *mode)
        assert tfnas_here(monkeypatch, *arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"{spec}: " in line
        assert expected in line
    assert [path.name for path in tmp_path.iterdir()] == ["spec.yaml"]


def test_all_that_is_wrong_with_fields_and_claims_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = tmp_path / "spec.yaml"
    base = BASE | {"num_warmup_epochs": BASE["num_epochs"]}
    wrong = {
        "mine": MINE | {"baseline": {"sampling": "sinlge"}, "within": {"dpeth": "sink"}},
        "e": {"within": {"seed": 0}},
    }
    content = {"experiment": "wrong", "base": base, "grid": {"seed": [0, 1]}, "claims": wrong}
    spec.write_text(yaml.safe_dump(content))
    assert tfnas_here(monkeypatch, "launch", str(spec), "--out", str(tmp_path / "out")) == 2
    said = capsys.readouterr().err
    for expected in ("num_warmup_epochs", "mine.baseline.sampling", "mine.within.dpeth", "claims.e: seed"):
        assert any(expected in line for line in said.splitlines()), (expected, said)


def test_claims_have_values_as_runs_have_them(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, {"sampling": ["single", "bi"]})
    of_paper = claims_of(load_spec(spec), spec)
    spec.write_text(spec.read_text() + yaml.safe_dump({"claims": {"mine": MINE}}))
    claims = claims_of(load_spec(spec), spec)
    assert claims["mine"]["treated"] == {"sampling": "bi_random"}
    assert claims.keys() == {*of_paper, "mine"}
    assert json.loads(json.dumps(claims)) == claims


# Cells that share a warm-up, in a grid that options change


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Launched:
    """A folder in which two cells share a warm-up; `--set` chooses them."""
    folder = tmp_path_factory.mktemp("shared")
    make_dense_table(get_space("micro")).save(folder / "elsewhere.json")
    spec = write_spec(folder, {"seed": [0]})
    spec.write_text(f"# Question: why?\n{spec.read_text()}")
    return folder, launch_shared(folder, "single, bi", num_parallel=2)


def launch_shared(folder: Path, samplings: str, num_parallel: int) -> CompletedProcess[str]:
    changes = (
        *("base.weight_lr=0.05", f"base.latency_table={folder / 'elsewhere.json'}"),
        *(f"grid={{seed: [3], sampling: [{samplings}]}}", f"resources.max_concurrent_trials={num_parallel}"),
    )
    sets = [part for change in changes for part in ("--set", change)]
    return tfnas("launch", str(folder / "spec.yaml"), "--out", str(folder / "out"), *sets)


def test_mlflow_keeps_the_file_and_the_grid_as_set_changed_them(shared: Launched) -> None:
    folder, done = shared
    out, spec = folder / "out", folder / "spec.yaml"
    assert done.returncode == 0, done.stderr
    for run in runs_of(out, "search"):
        assert (run.data.params["weight_lr"], run.data.params["seed"]) == ("0.05", "3")
    client = MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    (launch,) = runs_of(out, "launch")
    text = Path(client.download_artifacts(launch.info.run_id, spec.name)).read_text()
    assert text.startswith("# Question: why?\n# Changed by --set base.weight_lr=0.05\n")
    kept = yaml.safe_load(text)
    assert (kept["base"]["weight_lr"], kept["grid"]) == (0.05, {"seed": [3], "sampling": ["single", "bi"]})
    ((_, registered),) = registrations_of(out)
    assert (registered["base"]["weight_lr"], registered["base"]["seed"]) == (0.05, 3)
    wrong = tfnas("launch", str(spec), "--out", str(out), "--set", "base.weight_lr=-1")
    assert wrong.returncode == 2
    assert f"{spec} with --set base.weight_lr=-1: base.weight_lr: -1" in wrong.stderr


def test_cells_share_a_warm_up_and_each_result_is_that_of_the_cell_alone(shared: Launched) -> None:
    folder, first = shared
    out = folder / "out"
    assert first.returncode == 0, first.stderr
    assert "Shared warm-ups: 1 epoch reused" in first.stdout
    for checkpoint in (out / "warmups").glob("*/checkpoint-*.pt"):
        checkpoint.write_bytes(b"damaged")
    second = launch_shared(folder, "single, bi, bi_max, bi_min", num_parallel=1)
    assert second.returncode == 0, second.stderr
    assert "2 finished, 2 missing; 2 to run" in second.stdout
    (warning,) = (line for line in second.stdout.splitlines() if "warning" in line)
    assert "bi_m" in warning
    assert "checkpoint-00001-" in warning
    assert "damaged" in warning
    client = MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    runs = runs_of(out, "search")
    assert len(runs) == 4
    for run in runs:
        steps = [entry.step for entry in client.get_metric_history(run.info.run_id, "val_accuracy")]
        assert steps == [1, 2]
        artifacts = Path(client.download_artifacts(run.info.run_id, ""))
        fields = yaml.safe_load((artifacts / "config.yaml").read_text())
        records = list(run_search(SearchConfig(**fields)))
        alone = Trajectory.of(fields["space"], fields["depth"], records)
        for name, array in vars(Trajectory.load(artifacts / "trajectory.npz")).items():
            assert np.array_equal(array, getattr(alone, name), equal_nan=name == "scaling_ms_EP"), name
        with (artifacts / "metrics.csv").open(newline="") as file:
            for row, record in zip(csv.DictReader(file), records, strict=True):
                for name, value in record.metrics.items():
                    assert name == "epoch_seconds" or float(row[name]) == value, name
