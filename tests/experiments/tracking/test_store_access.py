"""New databases are copies of an empty one, and MLflow takes them for its own."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from experiments.tracking.store_access import create_database, open_store
from nas.foundation.uris import sqlite_uri


@pytest.fixture(autouse=True)
def _default_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def content_of(database: Path) -> list[tuple[object, ...]]:
    """The schema, its version, and all experiments without the times at which they were created.

    MLflow's migrations write the constraints of a table in an order that changes from one process to the
    next, so the lines of a definition are sorted.
    """
    with closing(sqlite3.connect(database)) as connection:
        schema = connection.execute(
            "SELECT type, name, sql FROM sqlite_master ORDER BY type, name"
        ).fetchall()
        return [
            *((kind, name, _lines(definition)) for kind, name, definition in schema),
            *connection.execute("SELECT * FROM alembic_version"),
            *connection.execute("SELECT experiment_id, name, artifact_location FROM experiments"),
            *connection.execute("SELECT * FROM workspaces"),
        ]


def _lines(definition: str | None) -> list[str]:
    return sorted(line.strip().removesuffix(",") for line in (definition or "").splitlines())


def test_a_copied_database_is_as_mlflow_creates_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_mlflow, copied, again = (tmp_path / name for name in ("mlflow.db", "copied.db", "again.db"))
    MlflowClient(sqlite_uri(by_mlflow))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    create_database(copied)
    (kept,) = (tmp_path / "cache").rglob("mlflow-*.db")
    kept_ns = kept.stat().st_mtime_ns
    create_database(again)
    assert kept.stat().st_mtime_ns == kept_ns
    for database in (copied, again):
        client = open_store(sqlite_uri(database))
        assert content_of(database) == content_of(by_mlflow)
        run = client.create_run(client.create_experiment("searches"))
        client.log_metric(run.info.run_id, "val_accuracy", 0.5)
        assert client.get_run(run.info.run_id).data.metrics == {"val_accuracy": 0.5}
    assert sorted(tmp_path.glob(".new-*")) == []


def test_a_database_that_is_there_stays(tmp_path: Path) -> None:
    """As when another launch creates it at that moment."""
    database = tmp_path / "mlflow.db"
    database.write_bytes(b"of another launch")
    create_database(database)
    assert database.read_bytes() == b"of another launch"


def test_without_a_folder_to_keep_it_in_mlflow_creates_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    database = tmp_path / "mlflow.db"
    create_database(database)
    assert not database.exists()
    assert open_store(sqlite_uri(database)).get_experiment("0").name == "Default"
