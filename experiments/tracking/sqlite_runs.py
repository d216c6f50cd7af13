"""Runs of an SQLite store, read without MLflow, which takes seconds to import.

Only stores with tables that are known here are read; whoever calls this leaves others to MLflow.
"""

import math
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

_TIMEOUT_S = 30

_KNOWN_TABLES = ("dc11669786a5",)
"""Revisions of MLflow's tables: of 3.17."""


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


class ShortRun(NamedTuple):
    """What tells people which run is meant."""

    run_id: str
    name: str
    status: str
    experiment: str


@dataclass(frozen=True)
class StoredExperiment:
    """An experiment of an MLflow store, its runs newest first."""

    name: str
    is_deleted: bool
    runs: list[StoredRun]


def read_sqlite_runs(database: Path, experiment: str) -> StoredExperiment | None:
    """Reads an experiment with all its runs, deleted ones too; None if there is none of that name.

    Raises:
        sqlite3.Error: the file cannot be read, is no store of MLflow, or has tables that are not known here.
    """
    with closing(_open(database)) as connection:
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


def list_sqlite_runs(database: Path) -> list[ShortRun]:
    """The searches, trainings and other runs of a store, newest first; neither deleted ones nor launches.

    Raises:
        sqlite3.Error: see `read_sqlite_runs`.
    """
    with closing(_open(database)) as connection:
        rows = connection.execute(
            "SELECT run_uuid, runs.name, status, experiments.name FROM runs JOIN experiments "
            "USING (experiment_id) WHERE runs.lifecycle_stage = 'active' AND run_uuid NOT IN "
            "(SELECT run_uuid FROM tags WHERE key = 'tfnas.kind' AND value = 'launch') "
            "ORDER BY start_time DESC"
        )
        return [ShortRun(*row) for row in rows]


def _open(database: Path) -> sqlite3.Connection:
    uri = f"file:{quote(str(database.absolute()))}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, timeout=_TIMEOUT_S)
    try:
        (revision,) = connection.execute("SELECT version_num FROM alembic_version").fetchone() or ("none",)
        if revision not in _KNOWN_TABLES:
            raise sqlite3.NotSupportedError(f"tables of revision {revision}")
    except BaseException:
        connection.close()
        raise
    return connection


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
