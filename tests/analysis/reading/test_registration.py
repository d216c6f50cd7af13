"""What is compared: the grid that was launched last, and what other runs the experiment has."""

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from analysis.reading import tags
from analysis.reading.captions import missing_note, name_runs
from analysis.reading.experiment import Experiment
from analysis.reading.experiment_reader import read_experiment
from analysis.reading.registration import FILE, parse_registration
from analysis.reading.run import NOT_A_SETTING, Run, name_images, varying_fields
from experiments.cells.search_cell import SearchCell
from experiments.cli.results.figures_command import figures
from experiments.launching.grid_record import CLAIMS_TAG, NOT_REGISTERED, GridRecord
from experiments.tracking import tracker
from nas.config import SearchConfig
from nas.foundation.errors import UserError
from tests.support.hand_made import experiment_of, run
from tests.support.synthetic import IMAGES, OTHER_IMAGES, Store, grid

SHORT = {"target_latency_ms": 1.0, "num_epochs": 4, "num_warmup_epochs": 1}
EDITED = SHORT | {"num_epochs": 6}
CELLS = grid(sampling=["single", "bi_random"], seed=[0, 1])


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Store(tmp_path, "demo")


def read(store: Store, **choice: Any) -> Experiment:
    return read_experiment("demo", store.tracking_uri, **choice)


def launch(store: Store, base: dict[str, Any], cells: list[dict[str, Any]], **registered: Any) -> list[str]:
    """Registers a grid, and runs all of it."""
    store.register(base, cells, **registered)
    return store.add_grid(base, cells)


def left_out(experiment: Experiment) -> list[str]:
    return [notice for notice in experiment.notices if "left out" in notice]


# The grid launched last


@pytest.fixture(scope="module")
def edited(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """An experiment whose YAML file was launched, edited from 4 to 6 epochs, and launched again."""
    store = Store(tmp_path_factory.mktemp("edited"), "demo")
    launch(store, SHORT, CELLS, claims={"e": {"sha256": "1"}})
    launch(store, EDITED, CELLS, claims={"e": {"sha256": "2"}})
    return store


def test_after_an_edit_the_runs_from_before_are_left_out_with_one_notice(edited: Store):
    experiment = read(edited)
    assert {run.config["num_epochs"] for run in experiment.runs} == {6}
    assert experiment.factors == ("sampling",)
    assert len(experiment.runs) == 4
    assert not experiment.missing
    assert [run.config["num_epochs"] for run in experiment.left_out] == [4] * 4
    assert all(run.trajectory is None for run in experiment.left_out)
    (notice,) = experiment.notices
    assert notice.startswith("4 runs left out: ")
    assert "grid.yaml" in notice
    assert "--all-runs" in notice


def test_all_runs_are_read_if_they_are_asked_for(edited: Store):
    experiment = read(edited, all_runs=True)
    assert {run.config["num_epochs"] for run in experiment.runs} == {4, 6}
    assert set(experiment.factors) == {"sampling", "num_epochs"}
    assert experiment.registered is None
    assert experiment.left_out == experiment.notices == ()


def test_registrations_are_kept_in_their_order_with_their_claims(edited: Store):
    experiment = read(edited)
    first, second = experiment.registrations
    assert experiment.registered == second
    assert first.time_ms < second.time_ms
    assert [one.claims["e"]["sha256"] for one in (first, second)] == ["1", "2"]
    assert list(second.cells) == [run.tag(tags.CELL) for run in experiment.runs]
    assert list(second.names.values()) == ["single-s0", "single-s1", "bi_random-s0", "bi_random-s1"]
    assert read(edited, all_runs=True).registrations == experiment.registrations


def test_the_command_reads_the_grid_or_all_runs(edited: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def say(*options: str) -> str:
        monkeypatch.setattr("analysis.figures.make_drawings", lambda experiment: ([], []))
        result = CliRunner().invoke(figures, ["demo", "--out", str(edited.out_dir), "--check", *options])
        assert result.exit_code == 0, result.output
        return result.stderr

    assert say().count("4 runs left out") == 1
    assert not say("--all-runs")


def test_without_a_registration_every_run_is_compared(store: Store):
    store.add_grid(SHORT, CELLS)
    experiment = read(store)
    assert len(experiment.runs) == 4
    assert experiment.registered is None
    assert experiment.notices == ()


def test_a_grid_that_is_launched_again_is_the_last_and_was_registered_first(store: Store):
    launch(store, SHORT, CELLS[:2], time_ms=1000)
    launch(store, EDITED, CELLS[:2], time_ms=2000)
    store.register(SHORT, CELLS[:2], time_ms=3000)
    experiment = read(store)
    assert {run.config["num_epochs"] for run in experiment.runs} == {4}
    assert experiment.registered is not None
    assert (experiment.registered.time_ms, experiment.registered.last_time_ms) == (1000, 3000)
    assert len(experiment.registrations) == 2


def test_searches_of_a_study_are_read_beside_the_grid(store: Store, tmp_path: Path):
    launch(store, SHORT, CELLS[:2])
    tags_of_study = {"tfnas.kind": "launch", "tfnas.study": "studied"}
    store.parent_id = store.client.create_run(store.experiment_id, tags=tags_of_study).info.run_id
    about = {"name": "studied", "objectives": [], "importances": [], "space": {}}
    for name, text in (("study.json", json.dumps(about)), ("trials.csv", "number,state\n")):
        store.client.log_text(store.parent_id, text, name)
    of_study = store.add(SHORT | {"weight_lr": 0.5}, [])
    store.parent_id = "another launch"
    store.add(SHORT | {"weight_lr": 0.7}, ["weight_lr"])
    experiment = read(store)
    assert of_study in {run.run_id for run in experiment.study_runs}
    assert {run.config["weight_lr"] for run in experiment.runs} == {0.025, 0.5}
    assert left_out(experiment)[0].startswith("1 run left out")


def test_a_grid_of_which_nothing_is_finished_is_refused_with_the_remedy(store: Store):
    launch(store, SHORT, CELLS)
    store.register(EDITED, CELLS)
    store.add(EDITED | CELLS[0], ["sampling", "seed"], status="RUNNING")
    with pytest.raises(UserError, match=r"1 RUNNING, 3 NOT STARTED.*4 other runs with --all-runs"):
        read(store)
    assert len(read(store, all_runs=True).runs) == 4


# Cells that never started


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A grid of which one search is finished, one failed and two never started."""
    store = Store(tmp_path_factory.mktemp("begun"), "demo")
    store.register(SHORT, CELLS)
    store.add(SHORT | CELLS[0], ["sampling", "seed"])
    store.add(SHORT | CELLS[1], ["sampling", "seed"], status="FAILED", failure="it diverged")
    return store


def test_registered_cells_without_a_run_are_missing(begun: Store):
    experiment = read(begun)
    failed, *not_started = experiment.missing
    assert failed.outcome == "failed: it diverged"
    assert [(run.name, run.run_id, run.outcome) for run in not_started] == [
        ("bi_random-s0", "", "not started"),
        ("bi_random-s1", "", "not started"),
    ]
    assert experiment.factors == ("sampling",)
    assert [(run.config["sampling"], run.seed) for run in experiment.cells] == [
        (cell["sampling"], cell["seed"])
        for cell in sorted(CELLS, key=lambda cell: cell["sampling"] != "single")
    ]


def test_cells_that_never_started_share_one_notice(begun: Store):
    (failed, not_started) = read(begun).notices
    assert "it diverged" in failed
    assert not_started == "missing: 2 of the grid's searches not started: bi_random-s0, bi_random-s1"


def test_captions_name_cells_that_never_started_and_give_no_id_for_them(begun: Store):
    experiment = read(begun)
    assert "bi_random-s1" in missing_note(experiment)
    (finished,) = experiment.runs
    assert name_runs([finished, *experiment.missing[1:]]) == f"Runs: {finished.short_id}."


def test_a_version_of_the_source_leaves_out_no_cell_that_never_started(begun: Store):
    assert len(read(begun, code_version="c0de").missing) == 3


def test_a_not_started_cell_of_another_table_is_left_out_with_it(store: Store):
    launch(store, SHORT, CELLS[:2])
    content = json.loads(GridRecord.of(cells_of(CELLS), {}, "grid.yaml").text)
    registration = parse_registration(content)
    (cell, *_) = registration.cells
    assert registration.not_started(cell).basis.table_fingerprint == "table"
    assert registration.not_started(cell).basis.results_version == "2"


# A cell's settings are those that are registered


def test_a_run_that_lacks_a_newer_field_has_the_registered_value(store: Store):
    store.register(SHORT, CELLS[:2])
    store.add(SHORT | CELLS[0], ["sampling", "seed"], params={"refine_widths": None})
    experiment = read(store)
    assert experiment.factors == ()
    assert experiment.runs[0].config["refine_widths"] is False


def test_what_had_no_effect_on_a_run_is_no_factor_beside_cells_that_never_started(store: Store):
    """A batch size of the table was given, then the table itself: the cells are the same."""
    store.register(SHORT, CELLS[:2])
    store.add(SHORT | CELLS[0], ["sampling", "seed"], params={"latency_batch_size": "32"})
    assert read(store).factors == ()


def cells_of(cells: list[dict[str, Any]], **fields: Any) -> list[SearchCell]:
    base = {"space": "paper"} | SHORT
    return [
        SearchCell(str(cell), cell, SearchConfig(**base | cell | fields), IMAGES, {}, "table")
        for cell in cells
    ]


def test_a_registered_config_equals_that_of_the_run(store: Store):
    fields = {"weight_lr": 1e-05, "max_train_images": 200, "elasticity": False, "space": "micro"}
    launch(store, SHORT | fields, CELLS[:1], time_ms=1)
    experiment = read(store)
    assert experiment.registered is not None
    (registered,) = experiment.registered.cells.values()
    (run,) = read(store, all_runs=True).runs
    assert registered == {name: value for name, value in run.config.items() if name not in NOT_A_SETTING}
    assert all(type(registered[name]) is type(run.config[name]) for name in registered)


def test_both_sides_of_mlflow_use_the_same_names():
    assert (tags.REGISTRATION, tags.REGISTERS) == (tracker.REGISTRATION_TAG, tracker.REGISTERS_TAG)
    assert FILE == tracker.REGISTRATION_FILE
    assert CLAIMS_TAG == "tfnas.claims"
    assert NOT_REGISTERED == NOT_A_SETTING


def test_ten_thousand_cells_are_registered_and_read_in_seconds():
    cells = cells_of(grid(seed=list(range(5000)), sampling=["single", "bi_random"]))
    start_s = time.perf_counter()
    registration = parse_registration(json.loads(GridRecord.of(cells, {}, "grid.yaml").text))
    assert time.perf_counter() - start_s < 30
    assert list(registration.cells) == [cell.hash for cell in cells]


# Images belong to the setting


@pytest.mark.parametrize("is_registered", [True, False])
def test_the_same_search_on_other_images_is_another_cell(is_registered: bool, store: Store):
    """Two folders of images under one name of a data set: paths are no settings, so only images tell."""
    for images in (IMAGES, OTHER_IMAGES):
        store.add_grid(SHORT, CELLS, images=images)
    if is_registered:
        store.register(SHORT, CELLS, images=(IMAGES, OTHER_IMAGES))
    experiment = read(store)
    assert len(experiment.runs) == 8
    assert set(experiment.factors) == {"sampling", "images"}
    assert not left_out(experiment)
    assert len(experiment.by_setting()) == 4
    labels = {experiment.label(run) for run in experiment.runs}
    assert "single, images 1a9e51a9e51a" in labels


def test_a_grid_over_folders_has_one_setting_per_folder_by_its_name(store: Store):
    """As a launch leaves it: paths are in the runs and not in the registration; one search is to come."""
    for name, images in (("A", IMAGES), ("B", OTHER_IMAGES)):
        params = {"dataset": "image_folder", "data_dir": f"/data/{name}"}
        store.add_grid(SHORT, CELLS[: 4 if name == "A" else 3], images=images, params=params)
    store.register(SHORT, CELLS, images=(IMAGES, OTHER_IMAGES))
    experiment = read(store)
    assert set(experiment.factors) == {"sampling", "images"}
    assert (len(experiment.runs), len(experiment.missing)) == (7, 1)
    labels = {experiment.label(run) for run in experiment.cells}
    assert labels == {f"{sampling}, images {name}" for sampling in ("single", "bi_random") for name in "AB"}


def test_images_are_named_by_list_or_folder_and_by_digits_where_that_does_not_tell_them_apart():
    runs = [
        on("a" * 12, data_dir="/data/birds"),
        on("b" * 12, data_dir="/data/birds", train_list="/lists/few.txt"),
        on("c" * 12, data_dir="/one/cats"),
        on("d" * 12, data_dir="/other/cats"),
        on("d" * 12, data_dir="/moved/cats"),
        on("e" * 12, data_dir=None),
    ]
    names = [each.config["images"] for each in name_images(runs)]
    assert names == ["birds", "few.txt", "cats (cccccc)", "cats (dddddd)", "cats (dddddd)", "e" * 12]


def test_runs_on_other_images_are_not_in_the_registered_grid(store: Store):
    launch(store, SHORT, CELLS[:2])
    store.add_grid(SHORT, CELLS[:2], images=OTHER_IMAGES)
    experiment = read(store)
    assert len(experiment.runs) == 2
    assert len(experiment.left_out) == 2


def on(images: str, **config: Any) -> Run:
    return run(images=images, **config)


def test_images_that_follow_from_the_data_set_or_the_number_of_images_are_no_factor_of_their_own():
    data_sets = [on("a", dataset="birds"), on("b", dataset="flowers")]
    assert varying_fields(data_sets) == ("dataset",)
    assert varying_fields([on("a", max_train_images=10), on("b", max_train_images=20)]) == (
        "max_train_images",
    )
    both = [on(f"{d}{n}", dataset=d, max_train_images=n) for d in "ab" for n in (1, 2)]
    assert set(varying_fields(both)) == {"dataset", "max_train_images"}


def test_images_that_only_another_setting_sets_apart_stay_a_factor():
    """Single-path on birds against bi-sampling on flowers compares two things at once."""
    confounded = [on("a", sampling="single"), on("b", sampling="bi")]
    assert set(varying_fields(confounded)) == {"sampling", "images"}
    assert len(experiment_of(confounded).other_factors("sampling")) == 1


def test_two_sets_of_images_of_one_data_set_stay_a_factor_beside_another_data_set():
    runs = [on("a", dataset="folder"), on("b", dataset="folder"), on("c", dataset="bundled")]
    assert set(varying_fields(runs)) == {"dataset", "images"}


def test_a_run_that_does_not_say_its_images_is_not_compared_with_others(store: Store):
    known = store.add(SHORT | CELLS[0], ["sampling", "seed"])
    unknown = store.add(SHORT | CELLS[0], ["sampling", "seed"])
    store.client.delete_tag(unknown, tags.DATA_FINGERPRINT)
    experiment = read(store)
    assert {run.run_id: run.config["images"] for run in experiment.runs} == {
        known: IMAGES[:12],
        unknown: "unknown",
    }


# Trainings


@pytest.fixture
def trained(store: Store) -> tuple[Store, list[str]]:
    """A grid of searches; three trainings, of which a grid of trainings has two."""
    (search, _) = launch(store, SHORT, CELLS[:2])
    ids = [store.add_training(f"run:{search}", search, seed=0), store.add_training("mnasnet1_0", seed=0)]
    store.register_trainings([f"train-run:{search}-s0", "train-mnasnet1_0-s0"])
    store.add_training("efficientnet_b0")
    return store, ids


def test_only_the_trainings_of_the_grid_launched_last_are_read(trained: tuple[Store, list[str]]):
    store, ids = trained
    experiment = read(store)
    assert {run.run_id for run in experiment.training} == set(ids)
    (notice,) = left_out(experiment)
    assert notice.startswith("1 training left out: ")
    assert "train.yaml" in notice
    assert len(read(store, all_runs=True).training) == 3
    assert len(experiment.registrations) == 1, "of searches"


def test_without_a_registered_grid_of_trainings_all_are_read(store: Store):
    launch(store, SHORT, CELLS[:2])
    store.add_training("efficientnet_b0")
    assert len(read(store).training) == 1
    assert not left_out(read(store))


def test_trainings_of_searches_that_are_left_out_are_left_out_with_a_notice(store: Store):
    (search, _) = launch(store, SHORT, CELLS[:2])
    store.add_training(f"run:{search}", search)
    launch(store, EDITED, CELLS[:2])
    experiment = read(store)
    assert experiment.training == ()
    assert any(notice.startswith("1 training left out") for notice in experiment.notices)


def test_a_damaged_record_of_trainings_costs_a_notice_and_no_figure(trained: tuple[Store, list[str]]):
    store, _ = trained
    launch_id = store.register_trainings(["another"])
    file_of(store, launch_id).write_text("{")
    experiment = read(store)
    assert len(experiment.training) == 3
    assert any(f"{FILE} of launch {launch_id[:8]}" in notice for notice in experiment.notices)


# Records that are damaged


def file_of(store: Store, launch_id: str) -> Path:
    (path,) = (store.out_dir / "mlartifacts").glob(f"{launch_id}/**/{FILE}")
    return path


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(None, id="missing"),
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff\xfe{", id="no text"),
        pytest.param(b"{", id="cut off"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(b'{"kind": ' + b"9" * 5000 + b"}", id="long number"),
        pytest.param(b'{"kind": "search", "kind": "search"}', id="repeated"),
        pytest.param(b"{}", id="another shape"),
    ],
)
@pytest.mark.parametrize("has_its_hash", [True, False])
def test_if_the_grid_launched_last_is_unknown_one_line_says_so(
    has_its_hash: bool, damage: bytes | None, store: Store
):
    launch(store, SHORT, CELLS[:2])
    launch_id = store.register(EDITED, CELLS[:2])
    path = file_of(store, launch_id)
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage)
        if has_its_hash:
            store.client.set_tag(launch_id, tags.REGISTRATION, hashlib.sha256(damage).hexdigest())
    with pytest.raises(UserError, match=f"{FILE} of launch {launch_id[:8]}.*--all-runs") as caught:
        read(store)
    assert "\n" not in str(caught.value)
    experiment = read(store, all_runs=True)
    assert len(experiment.runs) == 2
    assert len(experiment.registrations) == 1
    assert any(FILE in notice for notice in experiment.notices)


def test_a_record_that_is_not_what_the_launch_registered_is_refused(store: Store):
    launch(store, SHORT, CELLS[:2])
    other, last = store.register(SHORT, CELLS), store.register(EDITED, CELLS[:2])
    file_of(store, last).write_bytes(file_of(store, other).read_bytes())
    with pytest.raises(UserError, match="not what the launch registered"):
        read(store)


def test_a_damaged_record_of_an_earlier_grid_is_a_notice(store: Store):
    launch_id = store.register(EDITED, CELLS[:2])
    launch(store, SHORT, CELLS[:2])
    file_of(store, launch_id).write_text("{}")
    experiment = read(store)
    assert len(experiment.runs) == 2
    (notice,) = experiment.notices
    assert launch_id[:8] in notice


def test_another_launch_of_the_same_grid_stands_in_for_a_damaged_record(store: Store):
    launch_id = store.register(SHORT, CELLS[:2], time_ms=1000)
    store.add_grid(SHORT, CELLS[:2])
    store.register(SHORT, CELLS[:2], time_ms=2000)
    file_of(store, launch_id).unlink()
    experiment = read(store)
    assert experiment.registered is not None
    # The damaged record is no evidence of an earlier time.
    assert experiment.registered.time_ms == 2000
    assert experiment.notices == ()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"kind": "study"}, "kind: 'study'"),
        ({"file": 3}, "file: 3"),
        ({"cells": []}, "cells: []"),
        ({"cells": {"a": {"name": "a", "fields": {"seed": [0]}, "images": "b"}}}, "cells.a.fields.seed"),
        ({"cells": {"a": {"fields": {}, "images": "b"}}}, "cells.a.name: missing"),
        ({"base": {"seed": {}}}, "base.seed"),
        ({"claims": {"e": 1}}, "claims.e: 1"),
        ({"claims": None}, "claims: None"),
    ],
)
def test_json_of_another_shape_is_refused_in_one_line(change: dict[str, Any], expected: str):
    content = GridRecord.of(cells_of(CELLS), {}, "grid.yaml").content
    parse_registration(content)
    with pytest.raises(UserError, match=r"registration\.json: damaged: ") as caught:
        parse_registration(content | change)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, 1, [], {}])
def test_other_json_is_refused_in_one_line(content: Any):
    with pytest.raises(UserError, match=r"registration\.json: damaged: "):
        parse_registration(content)


def test_names_from_a_record_cannot_move_the_cursor():
    content = GridRecord.of(cells_of(CELLS[:1]), {}, "grid\x1b[2J\n.yaml").content
    registration = parse_registration(content)
    assert registration.file.isprintable()
