"""Where runs are tracked, and access to it: opening, reaching and searching an MLflow store.

MLflow takes seconds to import, so that happens in the functions that use it.
"""

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from platformdirs import user_cache_path

from nas.foundation.errors import UserError, first_line
from nas.foundation.uris import sqlite_path, sqlite_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

# MLflow would log the creation of its tables.
logging.getLogger("mlflow").setLevel(logging.WARNING)
# MLflow would also print the traceback of what it raises.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)

# If MLflow itself repeats a request, it may create a run twice and hide for minutes that the server is
# unreachable: `Delivery` retries instead.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
# MLflow would print where each run is, with the password of the server.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")


class UnreachableStoreError(UserError):
    """The tracking store does not answer now; nothing says that it never will."""


def tracking_uri(out: Path) -> str:
    """`MLFLOW_TRACKING_URI`, or a SQLite file in the output folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or default_uri(out)


def require_server(uri: str) -> None:
    """Checks that the tracking store is not a file on this machine.

    Raises:
        UserError: it is.
    """
    if not uri.startswith(("http:", "https:", "postgresql", "mysql", "mssql", "databricks")):
        raise UserError(
            f"MLFLOW_TRACKING_URI: {uri} is a file on this machine; a launch with --address needs a tracking "
            "server: start one (docs/cluster.md) and set MLFLOW_TRACKING_URI=http://HOST:5000"
        )


def default_file(out: Path) -> Path:
    """The SQLite file of an output folder."""
    return out.resolve() / "mlflow.db"


def default_uri(out: Path) -> str:
    """The URI of that file."""
    return sqlite_uri(default_file(out))


def is_there(uri: str) -> bool:
    """Whether there is a database; of a server, a request has to tell.

    Raises:
        UserError: not even the folder is there.
    """
    database = sqlite_path(uri)
    if database is None:
        return True
    if uri == os.environ.get("MLFLOW_TRACKING_URI") and not database.parent.is_dir():
        raise UserError(
            f"MLFLOW_TRACKING_URI: {uri}: the folder {database.parent} does not exist; create it, correct "
            "the path, or unset the variable"
        )
    return database.is_file()


def open_store(uri: str) -> "MlflowClient":
    """A client of a tracking store; opens a database, which MLflow creates if it is missing.

    Raises:
        UserError: MLflow does not know stores of this kind, lacks a driver, or cannot use the database.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    database = sqlite_path(uri)
    try:
        if database is not None and not database.exists():
            create_database(database)
        return MlflowClient(uri)
    except (MlflowException, SQLAlchemyError, ImportError, OSError) as error:
        raise UserError(_explain(uri, error)) from None


def create_database(database: Path) -> None:
    """Creates a database with MLflow's tables, unless there is one, or another process creates it meanwhile.

    MLflow takes a second to create its tables, so an empty database is kept and copied. Where nothing can be
    kept, or copied, there is none afterwards: MLflow creates it when it opens it.
    """
    with suppress(OSError, sqlite3.Error):
        template = _find_template()
        with TemporaryDirectory(prefix=".new-", dir=database.parent) as folder:
            copy = Path(folder) / "mlflow.db"
            copy.write_bytes(template.read_bytes())
            # Unlike a rename, a link never replaces what is there.
            os.link(copy, database)


def _find_template() -> Path:
    """The empty database of the installed MLflow; made if it is missing."""
    from mlflow import MlflowClient
    from mlflow.version import VERSION

    template = user_cache_path("tfnas", appauthor=False, ensure_exists=True) / f"mlflow-{VERSION}.db"
    if not template.is_file():
        with TemporaryDirectory() as made, TemporaryDirectory(dir=template.parent) as kept:
            full, empty = Path(made) / "full.db", Path(made) / "empty.db"
            MlflowClient(sqlite_uri(full))
            with closing(sqlite3.connect(full, isolation_level=None)) as connection:
                # It has the path of this folder; MLflow creates it anew in each copy.
                connection.execute("DELETE FROM experiments")
                connection.execute("VACUUM INTO ?", (str(empty),))
            copy = Path(kept) / "empty.db"
            copy.write_bytes(empty.read_bytes())
            copy.replace(template)
    return template


@contextmanager
def reaching(uri: str) -> Iterator[None]:
    """Turns an unreachable tracking store into a message for the user.

    Raises:
        UnreachableStoreError: it does not answer.
    """
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, RequestException, SQLAlchemyError) as error:
        raise UnreachableStoreError(_explain(uri, error)) from None


def _explain(uri: str, error: Exception) -> str:
    reason = first_line(error)
    if uri == os.environ.get("MLFLOW_TRACKING_URI"):
        return (
            f"MLFLOW_TRACKING_URI: cannot use {uri} ({reason}); start the server and set "
            "http://HOST:PORT, or unset the variable"
        )
    return (
        f"{sqlite_path(uri)}: cannot use this MLflow store ({reason}); end the program that locks it, "
        "install the MLflow that wrote it, or restore the file"
    )


@contextmanager
def moving_artifacts() -> Iterator[None]:
    """Turns what the library of an artifact store raises into an exception of MLflow.

    These have no base in common: missing credentials are an error of botocore, of google.auth or of azure.

    Raises:
        MlflowException: files cannot be stored or fetched.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError):
        raise
    except Exception as error:
        raise MlflowException(
            f"files cannot be stored or fetched: {first_line(error)}; give this machine access to the "
            "artifact store"
        ) from error


def search_runs(
    client: "MlflowClient", experiment_id: str, condition: str, *, with_deleted: bool = False
) -> "Iterator[Run]":
    """All runs of an experiment that meet a condition, newest first."""
    from mlflow.entities import ViewType

    view = ViewType.ALL if with_deleted else ViewType.ACTIVE_ONLY
    order, token = ["attributes.start_time DESC"], None
    while True:
        page = client.search_runs([experiment_id], condition, view, order_by=order, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
