"""The MLflow store: its address, its experiments and runs, and the files of a run."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

from mlflow.artifacts import download_artifacts
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from analysis.reading.mlflow_pages import views_in
from analysis.reading.run import Run
from analysis.reading.run_reader import make_run
from analysis.reading.run_store import ExperimentRuns, no_such_run
from nas.foundation.errors import UserError, first_line
from nas.foundation.uris import sqlite_path, sqlite_uri

_SQLITE_MAGIC = b"SQLite format 3\x00"


@dataclass(frozen=True)
class MlflowStore:
    """An MLflow store as a `RunStore`."""

    tracking_uri: str
    refuses_damage = False

    @property
    def name(self) -> str:
        """See `RunStore`."""
        return self.tracking_uri

    def is_slow(self, run: Run) -> bool:
        """See `RunStore`."""
        return is_remote(run.artifact_uri)

    def read_experiment(self, name: str) -> ExperimentRuns:
        """See `RunStore`."""
        with refuse_broken_store(self.tracking_uri):
            client = MlflowClient(tracking_uri=self.tracking_uri)
            experiment_id = find_experiment(client, name)
            views = views_in(dict(client.get_experiment(experiment_id).tags))
            runs = map(record_run, search_all(client, experiment_id))
            return ExperimentRuns(name, experiment_id, views, tuple(runs))

    def find_runs(self, name: str) -> list[Run]:
        """See `RunStore`."""
        with refuse_broken_store(self.tracking_uri):
            client = MlflowClient(tracking_uri=self.tracking_uri)
            experiments = [experiment.experiment_id for experiment in client.search_experiments()]
            found = _search(client, experiments, f"attributes.run_name = '{name.replace(chr(39), '')}'")
            if not found and name.isalnum():
                found = _search(client, experiments, f"attributes.run_id LIKE '{name}%'")
            if not found:
                known = [run.info.run_name or "" for run in _search(client, experiments, "", 1000)]
                raise UserError(no_such_run(name, known))
            return [record_run(run) for run in found]

    def fetch(self, run: Run, name: str, folder: Path) -> Path | None:
        """See `RunStore`."""
        return fetch_artifact(run.run_id, run.artifact_uri, name, self.tracking_uri, folder)


def record_run(run: MlflowRun) -> Run:
    """Returns a run of MLflow without its files."""
    return make_run(
        run.info.run_id,
        run.info.run_name or run.info.run_id,
        run.info.status,
        run.data.params,
        run.data.metrics,
        run.data.tags,
        start_time_ms=run.info.start_time or 0,
        artifact_uri=run.info.artifact_uri,
    )


def _search(
    client: MlflowClient, experiments: Sequence[str], query: str, max_results: int = 10
) -> list[MlflowRun]:
    return list(client.search_runs(list(experiments), query, max_results=max_results))


def tracking_uri_of(out_dir: Path) -> str:
    """Returns the MLflow store of a launch's folder, or the one that the environment names.

    Raises:
        UserError: the folder holds no store, or the environment names a file that is not there.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(out_dir.absolute() / "mlflow.db")
    path = sqlite_path(uri)
    if path is None:
        return uri
    # MLflow would create it.
    if not path.is_file():
        raise UserError(
            f"{path}: no MLflow store; give --out the folder of a launch, or set MLFLOW_TRACKING_URI"
        )
    with path.open("rb") as file:
        if file.read(len(_SQLITE_MAGIC)) != _SQLITE_MAGIC:
            raise UserError(
                f"{path}: not an MLflow store but another kind of file; correct --out or "
                "MLFLOW_TRACKING_URI, or launch into a new folder"
            )
    return uri


@contextmanager
def refuse_broken_store(tracking_uri: str) -> Iterator[None]:
    """Turns errors of MLflow, its database and drivers into one line.

    Raises:
        UserError: the store cannot be read.
    """
    try:
        yield
    except (MlflowException, SQLAlchemyError, ImportError, OSError) as error:
        raise UserError(
            f"{tracking_uri}: cannot read this MLflow store ({first_line(error)}); start its server, end the "
            "program that locks it, or correct MLFLOW_TRACKING_URI or --out"
        ) from None


def find_experiment(client: MlflowClient, name: str) -> str:
    """Returns the id of the experiment of that name.

    Raises:
        UserError: there is none; the message offers the nearest names.
    """
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        return str(experiment.experiment_id)
    names = [experiment.name for experiment in client.search_experiments()]
    names = get_close_matches(name, names, n=3, cutoff=0.0)
    raise UserError(f"experiment '{name}': there is none; the nearest names: {', '.join(names)}")


def search_all(client: MlflowClient, experiment_id: str) -> list[MlflowRun]:
    """Returns all runs of an experiment, in as few requests as the store allows."""
    runs: list[MlflowRun] = []
    token: str | None = None
    while True:
        page = client.search_runs([experiment_id], max_results=1000, page_token=token)
        runs += page
        token = page.token
        if not token:
            return runs


def is_remote(artifact_uri: str) -> bool:
    """Whether artifacts must be downloaded before they can be read."""
    return urlparse(artifact_uri).scheme not in ("", "file")


def _local_folder(run_id: str, artifact_uri: str, tracking_uri: str) -> Path:
    """The folder of a run's artifacts: beside the store if there is one, whatever path the store has.

    Stores have absolute paths; the folder may have been moved or copied since.
    """
    if (database := sqlite_path(tracking_uri)) is not None:
        beside = database.parent / "mlartifacts" / run_id / "artifacts"
        if beside.is_dir():
            return beside
    return Path(url2pathname(urlparse(artifact_uri).path))


def fetch_artifact(run_id: str, artifact_uri: str, name: str, tracking_uri: str, folder: Path) -> Path | None:
    """Returns the local path of an artifact, downloading it if needed; None if the run has none.

    Args:
        folder: where a downloaded file goes.

    Raises:
        UserError: the store cannot be read.
    """
    if not is_remote(artifact_uri):
        path = _local_folder(run_id, artifact_uri, tracking_uri) / name
        return path if path.is_file() else None
    folder.mkdir(parents=True, exist_ok=True)
    with refuse_broken_store(tracking_uri):
        return _download(run_id, name, tracking_uri, folder)


def _download(run_id: str, name: str, tracking_uri: str, folder: Path) -> Path | None:
    try:
        if name not in {item.path for item in MlflowClient(tracking_uri).list_artifacts(run_id)}:
            return None
        path = download_artifacts(
            run_id=run_id, artifact_path=name, dst_path=str(folder), tracking_uri=tracking_uri
        )
    except (MlflowException, OSError):
        raise
    except Exception as error:
        # Libraries of artifact stores have no exceptions in common: botocore, google.auth and azure.
        raise MlflowException(
            f"{name} cannot be fetched: {first_line(error)}; give this machine access to the artifact store"
        ) from error
    return Path(path)
