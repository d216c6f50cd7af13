"""Which cells are done, and what is said of those that are not."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from experiments.cells.cell import Cell
from experiments.cells.cell_folder import (
    CODE_TAG,
    LIBRARIES_TAG,
    RESULTS_VERSION_TAG,
    CellFolder,
    RunDescription,
)
from experiments.cells.search_cell import SearchCell
from experiments.cells.training_cell import TrainingCell
from experiments.launching.cell_states import CellState, cell_states, note_on_sources
from experiments.launching.status import next_steps
from experiments.tracking.tracked_cells import TrackedCell
from nas.config import SearchConfig, TrainConfig
from nas.search.search_identity import RESULTS_VERSION

SOURCE = {CODE_TAG: "a" * 64, LIBRARIES_TAG: "torch 2.14.1"}
FIELDS = {"space": "paper", "target_latency_ms": 1.0, "latency_table": "table.json"}


def search(**changes: Any) -> SearchCell:
    return SearchCell("same", {}, SearchConfig(**FIELDS | changes), "images", SOURCE, "table")


def training(**changes: Any) -> TrainingCell:
    fields: dict[str, Any] = {"architecture": "mobilenet_v2"}
    return TrainingCell("same", {}, TrainConfig(**fields | changes), "images", SOURCE, "mobilenet_v2")


def run_of(cell: Cell, *, without: str = "", **tags: str) -> TrackedCell:
    """The finished run of a cell, as tracked."""
    description = RunDescription.of(cell)
    params = {name: value for name, value in description.params.items() if name != without}
    return TrackedCell("id", "FINISHED", cell.name, params, description.tags | tags)


def state_beside(out: Path, cell: Cell, run: TrackedCell) -> CellState:
    (state,) = cell_states([cell], {run.tags["tfnas.cell"]: run}, out)
    return state


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (search(), search(weight_lr=0.1), "changed: weight_lr 0.025 -> 0.1"),
        (search(), search(batch_size=64, device="cpu"), "changed: batch_size 32 -> 64"),
        (search(), replace(search(), table_fingerprint="other"), "changed: lookup table"),
        (
            search(),
            replace(search(), data_fingerprint="other", config=search(seed=2).config),
            "changed: images,",
        ),
        (training(), training(lr=0.1), "changed: lr 0.2 -> 0.1"),
    ],
)
def test_a_missing_cell_names_what_changed_since_its_namesake(
    tmp_path: Path, before: Cell, now: Cell, expected: str
) -> None:
    state = state_beside(tmp_path, now, run_of(before))
    assert state.state == "missing"
    assert state.reason.startswith(expected)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"tfnas.health": "healthy"}, True),
        ({"tfnas.health": "unhealthy: latency", "tfnas.health_findings": "It is slow."}, False),
        ({}, None),
    ],
)
def test_the_health_of_a_search_whose_folder_is_gone_is_that_of_its_run(
    tmp_path: Path, tags: dict[str, str], expected: bool | None
) -> None:
    state = state_beside(tmp_path, search(), run_of(search(), **tags))
    assert (state.state, state.is_healthy) == ("finished", expected)


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [({"num_health_findings": 0.0}, True), ({"num_health_findings": 2.0}, False), ({}, None)],
)
def test_the_health_of_a_search_is_known_before_mlflow_knows_it(
    tmp_path: Path, metrics: dict[str, float], expected: bool | None
) -> None:
    folder = CellFolder.of(tmp_path, search())
    folder.describe(RunDescription.of(search()))
    folder.journal.start(None)
    folder.journal.add_epoch(1, {"val_accuracy": 0.5})
    folder.journal.add_epoch(2, {"val_accuracy": 0.6} | metrics)
    assert cell_states([search()], {}, tmp_path)[0].is_healthy is None
    folder.journal.finish("FINISHED")
    assert cell_states([search()], {}, tmp_path)[0].is_healthy is expected


def test_results_of_another_version_are_named_so_and_none_means_the_first(tmp_path: Path) -> None:
    run = run_of(search())
    other = replace(run, tags=run.tags | {RESULTS_VERSION_TAG: "0", "tfnas.cell": "other"})
    assert state_beside(tmp_path, search(), other).reason == "changed: results version"
    tags = {name: value for name, value in other.tags.items() if name != RESULTS_VERSION_TAG}
    assert RESULTS_VERSION > 1
    assert state_beside(tmp_path, search(), replace(run, tags=tags)).reason == "changed: results version"
    first = replace(run, tags=tags | {RESULTS_VERSION_TAG: "1"})
    assert state_beside(tmp_path, search(), first).reason == "changed: results version"


def test_a_field_that_an_older_run_lacks_agrees_with_its_default(tmp_path: Path) -> None:
    run = run_of(search(), without="grad_clip_norm")
    assert state_beside(tmp_path, search(seed=1), run).reason == "changed: seed 0 -> 1"
    changed = state_beside(tmp_path, search(grad_clip_norm=1.0), run)
    assert changed.reason == "changed: grad_clip_norm 5.0 -> 1.0"


def test_an_edit_of_the_source_leaves_a_cell_finished(tmp_path: Path) -> None:
    run = run_of(search())
    edited = replace(search(), provenance={CODE_TAG: "b" * 64, LIBRARIES_TAG: "torch 3.0"})
    assert state_beside(tmp_path, edited, run).state == "finished"


VERSION = f"results version {RESULTS_VERSION}"


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ([SOURCE, SOURCE], None),
        ([SOURCE, SOURCE | {CODE_TAG: "b"}], "2 versions of the source and 1 set of libraries"),
        ([SOURCE, SOURCE | {LIBRARIES_TAG: "b"}, {}], "2 versions of the source and 3 sets of libraries"),
    ],
)
def test_several_sources_or_libraries_of_finished_runs_are_noted(
    sources: list[dict[str, str]], expected: str | None
) -> None:
    states = [CellState(search(), "finished", tags=source) for source in sources]
    note = note_on_sources([*states, CellState(search(), "missing")])
    assert note == (expected and f"note: these runs come from {expected}; {VERSION} holds for all")


def test_a_cell_that_began_under_another_order_of_its_name_keeps_name_and_folder(tmp_path: Path) -> None:
    before = replace(search(), name="single-sink-T1-s0")
    folder = CellFolder.of(tmp_path, before)
    folder.describe(RunDescription.of(before))
    folder.journal.start("launch")
    folder.journal.add_epoch(1, {})
    folder.journal.finish("KILLED")
    now = replace(search(), name="single-s0-sink-T1")
    (state,) = cell_states([now], {}, tmp_path)
    assert (state.state, state.num_epochs, state.cell.name) == ("interrupted", 1, "single-sink-T1-s0")
    assert CellFolder.of(tmp_path, now).path == CellFolder.of(tmp_path, state.cell).path == folder.path
    assert state_beside(tmp_path / "gone", now, run_of(before)).cell.name == before.name
    # A person may rename a run.
    renamed = replace(run_of(before), name="my best")
    assert state_beside(tmp_path / "gone", now, renamed).cell.name == now.name


def test_after_searches_comes_the_file_of_trainings_beside_theirs_if_there_is_one(tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    done = [CellState(search(), "finished")]
    assert not [step for step in next_steps("mine", done, [str(config)], tmp_path) if "train" in step]
    (tmp_path / "mine_train.yaml").touch()
    (step,) = [step for step in next_steps("mine", done, [str(config)], tmp_path) if "train" in step]
    assert step.endswith(f": tfnas launch {tmp_path / 'mine_train.yaml'} --out {tmp_path}")


def test_after_trainings_the_most_accurate_network_is_ready_to_export_and_predict(tmp_path: Path) -> None:
    states = [
        CellState(replace(training(), name=name), "finished", metrics={"test_accuracy": accuracy})
        for name, accuracy in (("low", 0.5), ("high", 0.9))
    ]
    failed = CellState(replace(training(), name="failed"), "failed")
    steps = "\n".join(next_steps("mine", [*states, failed], ["mine_train.yaml"], tmp_path))
    assert f"tfnas export run:high --out {tmp_path}" in steps
    assert f"tfnas predict run:high --out {tmp_path} IMAGE" in steps
