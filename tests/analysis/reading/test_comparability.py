"""Which runs stand together: those of one lookup table and results version, whatever made them."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from analysis.figures import make_drawings
from analysis.figures.ink.figure_files import write_drawings
from analysis.reading import tags
from analysis.reading.experiment_reader import read_experiment
from experiments.cells import cell_folder
from experiments.cli.results.figures_command import figures
from experiments.cli.results.report_command import report
from nas.foundation.errors import UserError
from tests.support.synthetic import LIBRARIES, SOURCE, Store, grid

BASE = {"target_latency_ms": 1.0, "num_epochs": 4, "num_warmup_epochs": 1}
OTHER_SOURCE = "5ee0000005ee"
OTHER_LIBRARIES = "torch 2.15.0, numpy 2.3.5"
FORMER = {
    "sampling": "bi",
    **dict.fromkeys(("method", "kernels", "derivation", "final_temperature", "arch_lr_schedule")),
    **dict.fromkeys(("latency_multiplier_lr", "num_evaluations", "evaluation_sample")),
}
"""Params of a run made before these fields could be chosen, and samplings had one name each."""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Store(tmp_path, "demo")


@pytest.fixture
def two_sources(store: Store) -> Store:
    store.add_grid(BASE, grid(depth=["skip", "sink"], seed=[0]))
    store.add_grid(BASE, grid(depth=["sink"], seed=[1]), code_version=OTHER_SOURCE, libraries=OTHER_LIBRARIES)
    return store


def makers_notices(notices: tuple[str, ...]) -> list[str]:
    return [notice for notice in notices if "the runs come from" in notice]


def test_tags_have_the_names_that_a_launch_writes():
    assert tags.RESULTS_VERSION == cell_folder.RESULTS_VERSION_TAG
    assert tags.CODE_VERSION == cell_folder.CODE_TAG
    assert tags.LIBRARIES == cell_folder.LIBRARIES_TAG
    assert tags.DEVICE == cell_folder.DEVICE_TAG


def test_runs_of_two_sources_are_read_together_with_one_notice(two_sources: Store):
    experiment = read_experiment("demo", two_sources.tracking_uri)
    assert len(experiment.runs) == 3
    (notice,) = makers_notices(experiment.notices)
    assert "2 sources and 2 sets of libraries" in notice
    assert "devices" not in notice
    assert SOURCE in notice
    assert OTHER_SOURCE in notice
    assert "--code-version" in notice


def test_runs_of_one_source_need_no_notice(store: Store):
    store.add_grid(BASE, grid(seed=[0, 1]))
    assert read_experiment("demo", store.tracking_uri).notices == ()


def test_the_notice_stands_on_the_page_and_in_the_output_of_both_commands(two_sources: Store):
    for command in (figures, report):
        result = CliRunner().invoke(command, ["demo", "--out", str(two_sources.out_dir)])
        assert result.stderr.count("2 sources and 2 sets of libraries") == 1
    page = (two_sources.out_dir / "report.html").read_text()
    assert "2 sources and 2 sets of libraries" in page
    assert all(text in page for text in (SOURCE, OTHER_SOURCE, LIBRARIES, OTHER_LIBRARIES))


def test_a_stamp_has_results_version_sources_and_libraries_of_its_runs(two_sources: Store, tmp_path: Path):
    experiment = read_experiment("demo", two_sources.tracking_uri)
    drawings = [one for one in make_drawings(experiment)[0] if one.name in ("depth", "space")]
    write_drawings(drawings, experiment, tmp_path / "figures")
    stamp = json.loads((tmp_path / "figures" / "depth.json").read_text())
    assert stamp["results_version"] == "2"
    assert stamp["sources"] == [OTHER_SOURCE, SOURCE]
    assert stamp["sets_of_libraries"] == [LIBRARIES, OTHER_LIBRARIES]
    assert stamp["devices"] == ["cpu"]


def test_a_code_version_narrows_to_runs_of_one_source(two_sources: Store):
    experiment = read_experiment("demo", two_sources.tracking_uri, code_version=OTHER_SOURCE[:4])
    assert [run.name for run in experiment.runs] == ["sink-s1"]
    assert not makers_notices(experiment.notices)
    assert any("2 runs left out" in notice and "--code-version" in notice for notice in experiment.notices)
    with pytest.raises(UserError, match=f"no finished run of these.*{OTHER_SOURCE}"):
        read_experiment("demo", two_sources.tracking_uri, code_version="no such")


def test_runs_of_two_results_versions_are_never_mixed(store: Store):
    store.add_grid(BASE, grid(seed=[0, 1]))
    store.add_grid(BASE, grid(seed=[2]), results_version="3")
    experiment = read_experiment("demo", store.tracking_uri)
    assert {run.basis.results_version for run in experiment.runs} == {"2"}
    assert [run.seed for run in experiment.runs] == [0, 1]
    assert any("1 run left out" in notice and "results version 3" in notice for notice in experiment.notices)


def test_runs_without_a_results_version_are_of_the_first(store: Store):
    store.add(BASE | {"seed": 0}, ["seed"], older=True)
    store.add(BASE | {"seed": 1}, ["seed"], results_version="1")
    experiment = read_experiment("demo", store.tracking_uri)
    assert experiment.basis.results_version == "1"
    assert len(experiment.runs) == 2
    assert len(makers_notices(experiment.notices)) == 1


def test_the_newest_run_of_a_cell_is_used_whatever_its_source(store: Store):
    store.add(BASE | {"seed": 0}, ["seed"])
    newer = store.add(BASE | {"seed": 0}, ["seed"], code_version=OTHER_SOURCE)
    (run,) = read_experiment("demo", store.tracking_uri).runs
    assert run.run_id == newer


def test_trainings_of_two_sources_stand_together_and_of_two_results_versions_do_not(store: Store):
    (search,) = store.add_grid(BASE, grid(seed=[0]))
    same = [store.add_training("efficientnet_b0", seed=0)]
    same.append(store.add_training("efficientnet_b0", seed=1, code_version=OTHER_SOURCE))
    store.add_training(f"run:{search}", search, results_version="3")
    experiment = read_experiment("demo", store.tracking_uri)
    assert [run.run_id for run in experiment.training] == same
    assert "2 sources" in makers_notices(experiment.notices)[0]
    assert any("1 training left out" in notice and "version" in notice for notice in experiment.notices)


def test_former_runs_have_the_fields_and_names_of_today(store: Store):
    fields = BASE | {"sampling": "bi_random"}
    store.add(fields | {"seed": 0}, ["sampling", "seed"], params=FORMER)
    store.add(fields | {"seed": 1}, ["sampling", "seed"], params={"kernels": "torch"})
    experiment = read_experiment("demo", store.tracking_uri)
    former, current = experiment.runs
    assert experiment.factors == ()
    assert former.config == current.config | {"seed": 0, "kernels": "auto"}
    assert (former.config["method"], former.config["sampling"]) == ("tf_nas", "bi_random")


def test_kernels_are_no_setting(store: Store):
    for kernels in ("auto", "torch"):
        store.add(BASE | {"seed": 0}, ["seed"], params={"kernels": kernels})
    experiment = read_experiment("demo", store.tracking_uri)
    assert len(experiment.runs) == 1
