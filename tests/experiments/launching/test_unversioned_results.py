"""Results from before results had a version: recognized by their former identity, and taken over whole."""

import json
from pathlib import Path

import pytest

from experiments.cells.cell_folder import CODE_TAG, RESULTS_VERSION_TAG, CellFolder, RunDescription
from experiments.cells.search_cell import SearchCell
from experiments.launching.cell_states import cell_states
from experiments.launching.unversioned_results import adopt_unversioned, count_unversioned
from experiments.tracking.tracker import Tracker
from nas.config import SearchConfig

FORMER_HASH = "1af3421b07a292a282e6ecd6f9bda31a"
"""By what a launch of the former version knew the cell below; written down from its results."""

FORMER_CODE = "0b94192db1c12180725583e77d1db4de9d885628acceefe39e628a114edff4c0"
TABLE_FINGERPRINT = "4f29a20c24ba9d030da8591aa12f3754627804b71adcd01b600cde5a00641fbc"
DATA_FINGERPRINT = "4835d57aca48066beb9079ae3bc46eafa28a58c44e3b2caa39e4d4d2a14b04c0"


def make_cell(**fields: object) -> SearchCell:
    base = {
        "space": "micro",
        "max_train_images": 1200,
        "augmentation": "none",
        "target_latency_ms": 4.53,
        "latency_batch_size": 32,
        "sampling": "bi",
        "depth": "sink",
        "num_epochs": 16,
        "num_warmup_epochs": 4,
        "weight_lr": 0.1,
        "arch_lr": 0.03,
        "device": "cpu",
    }
    config = SearchConfig.model_validate(base | fields)
    return SearchCell(
        name=f"bi_random-sink-T4.53-s{config.seed}",
        factors={"sampling": config.sampling, "seed": config.seed},
        config=config,
        data_fingerprint=DATA_FINGERPRINT,
        provenance={CODE_TAG: "new source"},
        table_fingerprint=TABLE_FINGERPRINT,
    )


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def write_former_results(out: Path, tracker: Tracker, former_hash: str = FORMER_HASH) -> None:
    """A finished search, as the former version left it in its folder and in MLflow."""
    folder = CellFolder(out / "cells" / f"bi-sink-T4.53-s0-{former_hash[:10]}")
    tags = {
        "tfnas.cell": former_hash,
        "tfnas.kind": "search",
        "tfnas.factors": json.dumps(["sampling", "seed"]),
        "tfnas.data_fingerprint": DATA_FINGERPRINT,
        "tfnas.table_fingerprint": TABLE_FINGERPRINT,
        CODE_TAG: FORMER_CODE,
        "factor.sampling": "bi",
        "factor.seed": "0",
    }
    params = {"sampling": "bi", "seed": "0", "space": "micro"}
    folder.describe(RunDescription(former_hash, "bi-sink-T4.53-s0", params, tags))
    folder.artifacts.mkdir()
    folder.journal.start("launch")
    for epoch in range(1, 17):
        folder.journal.add_epoch(epoch, {"train_loss": 1 / epoch})
    folder.journal.finish("FINISHED")
    tracker.deliver(folder)


def test_former_results_are_taken_over_by_folder_and_by_run(out: Path) -> None:
    tracker = Tracker("former", out)
    write_former_results(out, tracker)
    cells = [make_cell(), make_cell(seed=1)]
    assert count_unversioned(cells, tracker.cells()) == 1
    said: list[str] = []
    adopt_unversioned(cells, out, tracker, tracker.cells(), said.append)
    assert len(said) == 1
    states = cell_states([*cells], tracker.cells(), out)
    assert [(state.state, state.num_epochs) for state in states] == [("finished", 16), ("missing", 0)]
    run = tracker.cells()[cells[0].hash]
    assert run.tags[RESULTS_VERSION_TAG] == "1"
    assert run.tags[CODE_TAG] == FORMER_CODE
    assert run.tags["factor.sampling"] == "bi_random"
    assert FORMER_HASH not in tracker.cells()
    assert [folder.name for folder in (out / "cells").iterdir()] == [cells[0].folder_name]


def test_taking_over_twice_changes_nothing_and_delivers_nothing_twice(out: Path) -> None:
    tracker = Tracker("former", out)
    write_former_results(out, tracker)
    cell = make_cell()
    said: list[str] = []
    for _ in range(2):
        adopt_unversioned([cell], out, tracker, tracker.cells(), said.append)
    assert len(said) == 1
    tracker.deliver(CellFolder.of(out, cell))
    assert list(tracker.cells()) == [cell.hash]


def test_a_run_that_the_former_version_would_not_have_taken_for_this_cell_stays_as_it_is(out: Path) -> None:
    tracker = Tracker("former", out)
    write_former_results(out, tracker)
    adopt_unversioned([make_cell(weight_lr=0.05)], out, tracker, tracker.cells(), pytest.fail)
    assert list(tracker.cells()) == [FORMER_HASH]


def test_results_of_another_version_are_not_taken_over(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = Tracker("former", out)
    write_former_results(out, tracker)
    monkeypatch.setattr(SearchCell, "results_version", 2)
    adopt_unversioned([make_cell()], out, tracker, tracker.cells(), pytest.fail)
    assert list(tracker.cells()) == [FORMER_HASH]
