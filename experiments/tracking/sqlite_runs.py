"""Runs of an SQLite store, read without MLflow, which takes seconds to import."""

import math
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

_TIMEOUT_S = 30


@dataclass(frozen=True)
class StoredRun:
    """A run of an MLflow store.

    Attributes:
        status: RUNNING, FINISHED, FAILED or KILLED.
        is_deleted: whether somebody deleted it in MLflow.
        metrics: the last value of each.
    """

    run_id: str
    name: str
    status: str
    is_deleted: bool
    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, float]


@dataclass(frozen=True)
class StoredExperiment:
    """An experiment of an MLflow store, its runs newest first."""

    name: str
    is_deleted: bool
    runs: list[StoredRun]


def read_sqlite_runs(database: Path, experiment: str) -> StoredExperiment | None:
    """Reads an experiment with all its runs, deleted ones too; None if there is none of that name.

    Raises:
        sqlite3.Error: the file cannot be read, is no store of MLflow, or of a version with other tables.
    """
    uri = f"file:{quote(str(database.absolute()))}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=_TIMEOUT_S)) as connection:
        # One transaction, so that all of it is of one moment.
        connection.execute("BEGIN")
        found = connection.execute(
            "SELECT experiment_id, lifecycle_stage FROM experiments WHERE name = ?", (experiment,)
        ).fetchone()
        if found is None:
            return None
        experiment_id, stage = found
        params = _texts(connection, "params", experiment_id)
        tags = _texts(connection, "tags", experiment_id)
        metrics = _metrics(connection, experiment_id)
        rows = connection.execute(
            "SELECT run_uuid, name, status, lifecycle_stage FROM runs WHERE experiment_id = ? "
            "ORDER BY start_time DESC, run_uuid",
            (experiment_id,),
        )
        runs = [
            StoredRun(
                run_id,
                name,
                status,
                _is_deleted(stage),
                params.get(run_id, {}),
                tags.get(run_id, {}),
                metrics.get(run_id, {}),
            )
            for run_id, name, status, stage in rows
        ]
    return StoredExperiment(experiment, _is_deleted(stage), runs)


def _texts(connection: sqlite3.Connection, table: str, experiment_id: int) -> dict[str, dict[str, str]]:
    """Keys and values of a table, by the ids of their runs."""
    rows = connection.execute(
        f"SELECT run_uuid, key, value FROM {table} JOIN runs USING (run_uuid) WHERE experiment_id = ?",
        (experiment_id,),
    )
    texts: dict[str, dict[str, str]] = {}
    for run_id, key, value in rows:
        texts.setdefault(run_id, {})[key] = value
    return texts


def _metrics(connection: sqlite3.Connection, experiment_id: int) -> dict[str, dict[str, float]]:
    """The last value of each metric, by the ids of their runs."""
    rows = connection.execute(
        "SELECT run_uuid, key, value, is_nan FROM latest_metrics JOIN runs USING (run_uuid) "
        "WHERE experiment_id = ?",
        (experiment_id,),
    )
    metrics: dict[str, dict[str, float]] = {}
    for run_id, key, value, is_nan in rows:
        metrics.setdefault(run_id, {})[key] = math.nan if is_nan else value
    return metrics


def _is_deleted(stage: str) -> bool:
    return stage != "active"
