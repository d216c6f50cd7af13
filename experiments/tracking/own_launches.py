"""The launches that an output folder began: by a random id each, never by the folder's path.

Two containers may give one tracking server the same path for two folders, and one folder may have several
paths after another: a path says nothing about whose a launch is.
"""

import json
import socket
from pathlib import Path
from uuid import uuid4

from nas.foundation.files import write_atomically
from nas.foundation.validation import read_json

LAUNCH_ID_TAG = "tfnas.launch_id"


class OwnLaunches:
    """The launches that were begun into an output folder, a small file for each.

    Args:
        owns_store: whether the folder holds the tracking store itself. Then the launches in the store are
            those of the folder, on whatever machine they ran; on a server, a copy of the folder on another
            machine must leave the launches of the original alone.
    """

    def __init__(self, out: Path, *, owns_store: bool) -> None:
        self._folder = out / "launches"
        self._owns_store = owns_store

    def begin(self) -> str:
        """Notes a new launch; returns its id."""
        launch_id = uuid4().hex
        self._folder.mkdir(parents=True, exist_ok=True)
        self._write(launch_id, "")
        return launch_id

    def end(self, launch_id: str, status: str) -> None:
        """Notes how a launch ended, in case that MLflow cannot be reached now."""
        self._write(launch_id, status)

    def __contains__(self, launch_id: str) -> bool:
        """Whether a launch was begun into the folder."""
        if self._owns_store:
            return True
        return self._path(launch_id).is_file() and self._read(launch_id)["host"] == socket.gethostname()

    def status(self, launch_id: str) -> str:
        """How one of these launches ended: KILLED if nobody noted it."""
        noted = self._read(launch_id)["status"] if self._path(launch_id).is_file() else ""
        return noted or "KILLED"

    def _write(self, launch_id: str, status: str) -> None:
        content = {"host": socket.gethostname(), "status": status}
        write_atomically(self._path(launch_id), json.dumps(content).encode())

    def _read(self, launch_id: str) -> dict[str, str]:
        content = read_json(self._path(launch_id), "the note of a launch")
        return {name: str(content[name]) for name in ("host", "status")}

    def _path(self, launch_id: str) -> Path:
        # Ids come from tags in MLflow, which anybody may have written.
        return self._folder / (launch_id if launch_id.isalnum() else "none")
