"""The MLflow store: its address, its experiments and runs, and the files of a run."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

from mlflow.artifacts import download_artifacts
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from nas.foundation.errors import UserError, first_line
from nas.foundation.uris import sqlite_path, sqlite_uri

_SQLITE_MAGIC = b"SQLite format 3\x00"


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
