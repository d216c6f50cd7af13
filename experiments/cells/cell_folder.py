"""The folder of one cell: all that a crash must not take, and all that tracking is told."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from experiments import __version__
from experiments.cells.cell import Cell
from experiments.cells.journal import Journal
from experiments.places.storage import Storage
from nas.foundation.errors import UserError
from nas.foundation.files import write_atomically
from nas.foundation.validation import read_json

RESULTS_VERSION_TAG = "tfnas.results_version"
CODE_TAG = "tfnas.code_version"
LIBRARIES_TAG = "tfnas.libraries"
DEVICE_TAG = "tfnas.device"


@dataclass(frozen=True)
class RunDescription:
    """What a cell's run is called and tagged with, in tracking.

    Attributes:
        cell: the cell's hash.
        params: the flat config, as text.
        storage: where its trials put their files; None for the folder itself.
    """

    cell: str
    name: str
    params: dict[str, str]
    tags: dict[str, str] = field(default_factory=dict)
    storage: str | None = None

    @classmethod
    def of(cls, cell: Cell, storage: Storage | None = None) -> Self:
        """Describes a cell."""
        factors = {f"factor.{name}": str(value) for name, value in cell.factors.items()}
        tags = {
            "tfnas.cell": cell.hash,
            "tfnas.kind": cell.kind,
            "tfnas.factors": json.dumps(list(cell.factors)),
            "tfnas.data_fingerprint": cell.data_fingerprint,
            RESULTS_VERSION_TAG: str(cell.results_version),
            "tfnas.version": __version__,
        }
        uri = storage.uri if storage else None
        return cls(cell.hash, cell.name, cell.params, tags | dict(cell.provenance) | cell.tags | factors, uri)


class CellFolder:
    """Paths and small files of a cell's folder.

    The driver writes the description, the journal and the receipt; the trial writes checkpoints,
    artifacts and, should it fail, its traceback: here or into the storage that the description names.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.artifacts = path / "artifacts"
        self.traceback = path / "traceback.txt"
        self.journal = Journal(path / "journal.jsonl")
        self._description = path / "run.json"
        self._receipt = path / "delivered.json"

    @classmethod
    def of(cls, out: Path, cell: Cell) -> Self:
        """The folder of a cell below an output folder."""
        return cls(out / "cells" / cell.folder_name)

    def describe(self, description: RunDescription) -> None:
        """Makes the folder, and writes down what it is the folder of."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomically(self._description, json.dumps(asdict(description), indent=1).encode())

    @property
    def description(self) -> RunDescription:
        """What the folder is the folder of.

        Raises:
            UserError: the file is missing or damaged.
        """
        try:
            return RunDescription(**_mapping(read_json(self._description, "the description of a run")))
        except (TypeError, ValueError) as error:
            raise UserError(
                f"{self._description}: damaged ({error}); remove its folder to run the cell again"
            ) from None

    def fetch_results(self) -> None:
        """Brings artifacts, or the traceback, here from the storage that they were put into.

        Raises:
            OSError: it cannot be reached.
        """
        uri = self.description.storage
        if uri is not None:
            Storage(uri).cell(self.path.name).fetch_results(self.path)

    def num_delivered(self, run_id: str) -> int:
        """How many events of the journal a run is known to hold; delivering again does no harm."""
        if not self._receipt.is_file():
            return 0
        receipt = _mapping(read_json(self._receipt, "a receipt"))
        return int(receipt["num_events"]) if receipt.get("run_id") == run_id else 0

    def confirm_delivery(self, run_id: str, num_events: int) -> None:
        """Notes that a run holds the first so many events."""
        receipt = {"run_id": run_id, "num_events": num_events}
        write_atomically(self._receipt, json.dumps(receipt).encode())


def find_cell_folders(out: Path) -> list[CellFolder]:
    """Every cell's folder below an output folder."""
    return [CellFolder(path.parent) for path in sorted((out / "cells").glob("*/run.json"))]


def _mapping(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise ValueError("it is no record")
    return content
