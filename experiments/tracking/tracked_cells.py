"""The runs of cells in MLflow: what launches know of them, and how it is read."""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.tracking.sqlite_runs import StoredRun, read_sqlite_runs
from experiments.tracking.store_access import is_there, open_store, reaching, search_runs, tracking_uri
from nas.foundation.errors import UserError
from nas.foundation.uris import sqlite_path

if TYPE_CHECKING:
    from mlflow import MlflowClient

REGISTRATION_FILE = "registration.json"
REGISTRATION_TAG = "tfnas.registration"
"""SHA-256 of the registration."""

REGISTERS_TAG = "tfnas.registers"
"""Kind of the registered cells."""

DELETED = "DELETED"

HEALTH_TAG = "tfnas.health"
HEALTHY = "healthy"
FAILURE_TAG = "tfnas.failure"
PARENT_TAG = "mlflow.parentRunId"
SUPERSEDED_TAG = "tfnas.superseded_by"
"""On deleted runs that nobody deleted by hand: the run that has taken their place."""


@dataclass(frozen=True)
class TrackedCell:
    """The run of a cell in MLflow.

    Attributes:
        metrics: the last value of each.
        status: RUNNING, FINISHED, FAILED or KILLED; DELETED if somebody deleted it in MLflow, and there is no
            other run of the cell.
    """

    run_id: str
    status: str
    name: str
    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def launch(self) -> str | None:
        """The run of the launch that ran the cell last."""
        return self.tags.get(PARENT_TAG)

    @property
    def failure(self) -> str | None:
        """Why it failed, in one line; None if it did not."""
        return self.tags.get(FAILURE_TAG)

    @property
    def is_healthy(self) -> bool | None:
        """Whether the search passed all health checks; None without any."""
        health = self.tags.get(HEALTH_TAG)
        return None if health is None else health == HEALTHY


def read_tracked_cells(experiment: str, out: Path) -> dict[str, TrackedCell]:
    """All cells of an experiment, by hash; creates neither a store nor an experiment.

    Call it before what takes long: it refuses a store that can never be used.

    Raises:
        UserError: the tracking store cannot be used, or the experiment was deleted there.
        UnreachableStoreError: it does not answer.
    """
    uri = tracking_uri(out)
    if not is_there(uri):
        return {}
    client = open_store(uri)
    with reaching(uri):
        found = client.get_experiment_by_name(experiment)
        if found is None:
            return {}
        check_active(experiment, found.lifecycle_stage != "active", uri)
        return read_cells(client, found.experiment_id)


def peek_at_tracked_cells(experiment: str, out: Path) -> dict[str, TrackedCell]:
    """The same, for a look that nothing depends on: of an SQLite file, without MLflow.

    Raises:
        UserError: see `read_tracked_cells`.
    """
    uri = tracking_uri(out)
    database = sqlite_path(uri)
    if database is None or not is_there(uri):
        return read_tracked_cells(experiment, out)
    try:
        found = read_sqlite_runs(database, experiment)
    except sqlite3.Error:
        # MLflow knows more versions of its tables, and reasons why a file is none.
        return read_tracked_cells(experiment, out)
    if found is None:
        return {}
    check_active(experiment, found.is_deleted, uri)
    return _cells_of(found.runs)


def check_active(experiment: str, is_deleted: bool, uri: str) -> None:
    """Checks that an experiment was not deleted.

    Raises:
        UserError: it was.
    """
    if is_deleted:
        raise UserError(
            f"experiment: '{experiment}' was deleted in {uri}; restore it there, or choose another name"
        )


def read_cells(client: "MlflowClient", experiment_id: str) -> dict[str, TrackedCell]:
    """All cells of an experiment, by hash."""
    found = search_runs(client, experiment_id, "tags.`tfnas.kind` != 'launch'", with_deleted=True)
    return _cells_of(
        StoredRun(
            run.info.run_id,
            run.info.run_name,
            run.info.status,
            run.info.lifecycle_stage == "deleted",
            dict(run.data.params),
            dict(run.data.tags),
            dict(run.data.metrics),
        )
        for run in found
    )


def _cells_of(found: Iterable[StoredRun]) -> dict[str, TrackedCell]:
    """The cells among runs, which are newest first."""
    runs = [run for run in found if "tfnas.cell" in run.tags and SUPERSEDED_TAG not in run.tags]
    # Deleted ones first, so that others take their place; then oldest last, so that everybody picks the same
    # one of two runs of a cell.
    runs.sort(key=lambda run: not run.is_deleted)
    return {
        run.tags["tfnas.cell"]: TrackedCell(
            run.run_id,
            DELETED if run.is_deleted else run.status,
            run.name,
            run.params,
            run.tags,
            run.metrics,
        )
        for run in runs
    }
