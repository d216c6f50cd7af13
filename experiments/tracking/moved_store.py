"""The tracking store of an output folder that was moved or copied since."""

import sqlite3
from contextlib import closing
from pathlib import Path

from nas.foundation.errors import UserError

ARTIFACTS = "mlartifacts"
"""Name of the folder with artifacts, beside `mlflow.db`."""


def point_artifacts_here(database: Path) -> None:
    """Makes the artifacts of a store those beside it.

    MLflow keeps absolute paths. After a move they lead nowhere, and after a copy to the original.

    Args:
        database: an SQLite file of MLflow, or none yet.

    Raises:
        UserError: the file cannot be read, or the folder was moved or copied and it cannot be written.
    """
    if not database.is_file():
        return
    here = (database.absolute().parent / ARTIFACTS).as_uri()
    try:
        with closing(sqlite3.connect(database, timeout=30)) as connection, connection:
            for experiment_id, location in _locations(connection):
                is_ours = location.startswith("file:") and location.endswith(f"/{ARTIFACTS}")
                if not is_ours or location == here:
                    continue
                connection.execute(
                    "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?",
                    (here, experiment_id),
                )
                connection.execute(
                    "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) "
                    "WHERE experiment_id = ? AND substr(artifact_uri, 1, ?) = ?",
                    (here, len(location) + 1, experiment_id, len(location) + 1, f"{location}/"),
                )
    except sqlite3.Error as error:
        raise UserError(
            f"{database}: cannot use this MLflow store ({error}); end the program that locks it, make it "
            "writable if its folder was moved or copied, or restore the file"
        ) from None


def _locations(connection: sqlite3.Connection) -> list[tuple[int, str]]:
    tables = connection.execute("SELECT name FROM sqlite_master WHERE name = 'experiments'").fetchall()
    if not tables:
        return []
    found = connection.execute("SELECT experiment_id, artifact_location FROM experiments").fetchall()
    return [(int(number), str(location)) for number, location in found]
