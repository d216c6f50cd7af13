"""Runs in MLflow that commands name as `run:RUN`."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.cells.cell_names import sorted_parts
from experiments.tracking.moved_store import point_artifacts_here
from experiments.tracking.short_names import EXPERIMENT_PREFIX, RUN_PREFIX, find_run_id
from experiments.tracking.store_access import (
    moving_artifacts,
    open_store,
    reaching,
    search_runs,
    tracking_uri,
)
from nas.foundation.errors import UserError
from nas.foundation.uris import sqlite_path

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

# Otherwise MLflow draws a progress bar for every file.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

_ID = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True)
class NamedRun:
    """A run that a person named.

    Attributes:
        reference: as the person named it.
        experiment: name of its experiment.
        out: output folder that downloads go to.
    """

    reference: str
    run: "Run"
    experiment: str
    client: "MlflowClient"
    out: Path

    @property
    def run_id(self) -> str:
        """Its id in MLflow."""
        return str(self.run.info.run_id)

    @property
    def name(self) -> str:
        """Its name in MLflow."""
        return str(self.run.info.run_name)

    def fetch(self, artifact: str, remedy: str) -> Path:
        """Downloads an artifact into the output folder.

        Raises:
            UserError: the run has no such artifact; names the remedy.
        """
        folder = self.out / "fetched" / self.run_id
        folder.mkdir(parents=True, exist_ok=True)
        with reaching(self.client.tracking_uri), moving_artifacts():
            if artifact in {file.path for file in self.client.list_artifacts(self.run_id)}:
                return Path(self.client.download_artifacts(self.run_id, artifact, str(folder)))
        raise UserError(
            f"{self.reference}: run '{self.name}' ({self.run.info.status}) has no {artifact}; {remedy}"
        )


def find_run(reference: str, out: Path) -> NamedRun:
    """Finds the run of a reference on the tracking server, or in the store of an output folder.

    Args:
        reference: `run:` and the id of a run, the first digits of an id, or a name.

    Raises:
        UserError: there is no such store or run, or there are several runs.
    """
    client = _open_store(reference, out)
    text = reference.removeprefix(RUN_PREFIX)
    run = _get_run(client, text) if _ID.fullmatch(text) else None
    if run is None:
        run = _get_run(client, find_run_id(reference, out))
    # It was there a moment ago.
    assert run is not None
    with reaching(client.tracking_uri):
        experiment = client.get_experiment(run.info.experiment_id)
    return NamedRun(reference, run, str(experiment.name), client, out)


def _get_run(client: "MlflowClient", run_id: str) -> "Run | None":
    """The run of an id; None if there is none, or none that a store could have."""
    from mlflow.exceptions import MlflowException

    with reaching(client.tracking_uri):
        try:
            return client.get_run(run_id)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            return None


def find_searches(reference: str, out: Path) -> list[NamedRun]:
    """The finished searches of `experiment:NAME`, the newest of each name, in order of their start.

    Raises:
        UserError: there is no such store or experiment, or none of its searches is finished.
    """
    client = _open_store(reference, out)
    name = reference.removeprefix(EXPERIMENT_PREFIX)
    with reaching(client.tracking_uri):
        experiment = client.get_experiment_by_name(name)
        condition = "tags.`tfnas.kind` = 'search' and attributes.status = 'FINISHED'"
        runs = list(search_runs(client, experiment.experiment_id, condition)) if experiment else []
    if not runs:
        raise UserError(
            f"{reference}: no finished search of that experiment in {client.tracking_uri}; launch it first, "
            "or give the folder of its launch with --out"
        )
    newest = {sorted_parts(run.info.run_name): run for run in reversed(runs)}
    return [NamedRun(reference, run, name, client, out) for run in newest.values()]


def _open_store(reference: str, out: Path) -> "MlflowClient":
    uri = tracking_uri(out)
    database = sqlite_path(uri)
    if database is not None and not database.is_file():
        raise UserError(f"{reference}: no MLflow store {database}; give the folder of its launch with --out")
    # First, since it refuses what is no store by the name under which it was given.
    client = open_store(uri)
    if database is not None:
        point_artifacts_here(database)
    return client
