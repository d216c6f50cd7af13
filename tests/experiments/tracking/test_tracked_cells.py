"""A look at an SQLite store without MLflow shows what MLflow shows."""

import sqlite3
from pathlib import Path

import pytest

from experiments.tracking.tracked_cells import DELETED, peek_at_tracked_cells, read_tracked_cells
from nas.foundation.errors import UserError
from tests.support.synthetic import Store, grid

BASE = {"target_latency_ms": 1.0}


@pytest.fixture(autouse=True)
def _own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "out", "looked_at")


def test_cells_are_the_same_whatever_their_state(store: Store) -> None:
    *_, deleted = store.add_grid(BASE, grid(seed=[0, 1, 2]))
    store.add(BASE | {"seed": 3}, ["seed"], status="FAILED", failure="a loss is infinite")
    store.add(BASE | {"seed": 4}, ["seed"], status="RUNNING")
    again = store.add(BASE | {"seed": 0}, ["seed"])
    store.client.delete_run(deleted)
    store.client.create_run(store.experiment_id, run_name="of somebody else")
    seen = peek_at_tracked_cells("looked_at", store.out_dir)
    assert seen == read_tracked_cells("looked_at", store.out_dir)
    assert sorted(cell.status for cell in seen.values()) == [
        *(DELETED, "FAILED", "FINISHED", "FINISHED", "RUNNING")
    ]
    assert again not in {cell.run_id for cell in seen.values()}


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    out = tmp_path / "100%? #1"
    made = Store(tmp_path / "plain", "looked_at")
    made.add(BASE, [])
    (tmp_path / "plain").rename(out)
    seen = peek_at_tracked_cells("looked_at", out)
    assert len(seen) == 1
    assert seen == read_tracked_cells("looked_at", out)


def test_there_are_no_cells_without_a_store_or_an_experiment(store: Store, tmp_path: Path) -> None:
    assert peek_at_tracked_cells("another", store.out_dir) == {}
    assert peek_at_tracked_cells("looked_at", tmp_path / "nothing") == {}
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("damage", ["deleted experiment", "no database", "no tables"])
def test_a_store_that_cannot_be_used_is_refused_in_the_same_words(store: Store, damage: str) -> None:
    database = store.out_dir / "mlflow.db"
    if damage == "deleted experiment":
        store.client.delete_experiment(store.experiment_id)
    elif damage == "no database":
        database.write_bytes(b"not a database" * 100)
    else:
        with sqlite3.connect(database) as connection:
            connection.execute("ALTER TABLE runs RENAME TO walks")
    refusals = []
    for read in (read_tracked_cells, peek_at_tracked_cells):
        with pytest.raises(UserError) as caught:
            read("looked_at", store.out_dir)
        refusals.append(str(caught.value))
    assert refusals[0] == refusals[1]
