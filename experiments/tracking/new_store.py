"""New MLflow databases: copies of an empty one, since MLflow takes a second to create its tables."""

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from platformdirs import user_cache_path

from nas.foundation.uris import sqlite_uri


def create_database(database: Path) -> None:
    """Creates a database with MLflow's tables, unless there is one, or another process creates it meanwhile.

    Where nothing can be kept, or copied, there is none afterwards: MLflow creates it when it opens it.
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
