"""The folder of a cell: what must survive a crash, and what is delivered to MLflow."""

import json
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import yaml

from experiments import __version__
from experiments.cells.cell import Cell
from experiments.cells.cell_names import AnyCell, as_named
from experiments.cells.journal import Journal
from experiments.cells.origin import origin_tags
from experiments.places.storage import Storage
from nas.config import ConfigRecord
from nas.foundation.errors import UserError
from nas.foundation.files import write_atomically
from nas.foundation.validation import read_json
from nas.search.health import HealthCheck, checks_from_json, checks_to_json

RESULTS_VERSION_TAG = "tfnas.results_version"
CODE_TAG = "tfnas.code_version"
LIBRARIES_TAG = "tfnas.libraries"
DEVICE_TAG = "tfnas.device"


@dataclass(frozen=True)
class RunDescription:
    """Name, params and tags of a cell's run in MLflow.

    Attributes:
        cell: the cell's hash.
        params: the flat config, as text.
        storage: where its trials keep their files; None for the folder itself.
        experiment: the experiment that it was last run for; None if unknown, as of an older tfnas.
    """

    cell: str
    name: str
    params: dict[str, str]
    tags: dict[str, str] = field(default_factory=dict)
    storage: str | None = None
    experiment: str | None = None

    @classmethod
    def of(cls, cell: Cell, experiment: str | None = None, storage: Storage | None = None) -> Self:
        """Describes a cell."""
        factors = {f"factor.{name}": str(value) for name, value in cell.factors.items()}
        tags = {
            "tfnas.cell": cell.hash,
            "tfnas.kind": cell.kind,
            "tfnas.factors": json.dumps(list(cell.factors)),
            "tfnas.data_fingerprint": cell.data_fingerprint,
            RESULTS_VERSION_TAG: str(cell.results_version),
            "tfnas.version": __version__,
            **origin_tags("tfnas"),
        }
        uri = storage.uri if storage else None
        tags |= dict(cell.provenance) | cell.tags | factors
        return cls(cell.hash, cell.name, cell.params, tags, uri, experiment)


class CellFolder:
    """Paths and small files of a cell's folder.

    The launch writes the description, the journal and the receipt. The trial writes checkpoints,
    artifacts and, if it fails, its traceback: here, or into the storage of the launch.

    Args:
        storage: where the trials of this launch keep their files; None for the folder itself.
    """

    def __init__(self, path: Path, storage: Storage | None = None) -> None:
        self.path = path
        self.storage = storage
        self.checkpoints = path / "checkpoints"
        self.artifacts = path / "artifacts"
        self.traceback = path / "traceback.txt"
        self.journal = Journal(path / "journal.jsonl")
        self._description = path / "run.json"
        self._receipt = path / "delivered.json"
        self._health = self.artifacts / "health.json"

    @classmethod
    def of(cls, out: Path, cell: Cell, storage: Storage | None = None) -> Self:
        """The folder of a cell below an output folder."""
        return cls.below(out / "cells", cell, storage)

    @classmethod
    def below(cls, parent: Path, cell: Cell, storage: Storage | None = None) -> Self:
        """The folder of a cell among others, known by the hash behind its name, which may change."""
        path = parent / cell.folder_name
        if not path.is_dir():
            path = next(iter(sorted(parent.glob(f"*-{cell.hash[:10]}"))), path)
        return cls(path, storage)

    def describe(self, description: RunDescription) -> None:
        """Makes the folder and writes its description."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomically(self._description, json.dumps(asdict(description), indent=1).encode())

    def with_earlier_name(self, cell: AnyCell) -> AnyCell:
        """The cell with the name under which it began; see `as_named`.

        Raises:
            UserError: the description is damaged.
        """
        return as_named(cell, self.description.name) if self._description.is_file() else cell

    @property
    def description(self) -> RunDescription:
        """The cell that the folder belongs to.

        Raises:
            UserError: the file is missing or damaged.
        """
        content = read_json(self._description, "the description of a run")
        try:
            return RunDescription(**content)
        except TypeError as error:
            raise UserError(
                f"{self._description}: damaged ({error}); remove its folder to run the cell again"
            ) from None

    def check(self) -> None:
        """Checks that its small files can be read, and that no file is a link.

        Raises:
            UserError: one of them is damaged, or a link.
        """
        _ = self.description, self.delivered_to
        self.check_links()

    def check_links(self) -> None:
        """Checks that no file is a link: what it leads to may be private, and would be delivered.

        Raises:
            UserError: one is.
        """
        for path in self.path.rglob("*"):
            if path.is_symlink():
                raise UserError(f"{path}: is a link, which may lead to private files; put the file there")

    def write_config(self, config: ConfigRecord) -> None:
        """Creates the folder of artifacts, with the config in it."""
        self.artifacts.mkdir(exist_ok=True)
        fields = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
        (self.artifacts / "config.yaml").write_text(fields, encoding="utf-8")

    def write_health(self, checks: Sequence[HealthCheck]) -> None:
        """Writes the health checks of a search into its artifacts."""
        content = json.dumps(checks_to_json(checks), indent=1)
        self._health.write_text(content + "\n", encoding="utf-8")

    @property
    def health(self) -> list[HealthCheck]:
        """The health checks of a finished search; empty for trainings and for older searches.

        Raises:
            UserError: the file is damaged.
        """
        if not self._health.is_file():
            return []
        return checks_from_json(read_json(self._health, "the health checks of a search"), self._health)

    def fetch_results(self) -> None:
        """Copies artifacts, or the traceback, here from the storage that holds them.

        Raises:
            UserError: that is not the storage of this launch. An output folder may come from somebody else:
                it must not choose what is read.
            OSError: the storage is unreachable.
        """
        holder = self.description.storage
        if holder is None:
            return
        if self.storage is None or self.storage.uri != holder:
            raise UserError(f"--storage: {holder} holds the results of {self.path.name}; give it again")
        self.storage.cell(self.path.name).fetch_results(self.path)

    def num_delivered(self, run_id: str) -> int:
        """Number of events that a run is known to hold; delivering them again does no harm."""
        receipt = self._read_receipt()
        return int(receipt["num_events"]) if receipt.get("run_id") == run_id else 0

    @property
    def delivered_to(self) -> str | None:
        """The run that events were delivered to last; None before."""
        return self._read_receipt().get("run_id")

    def _read_receipt(self) -> dict[str, Any]:
        receipt = read_json(self._receipt, "a receipt") if self._receipt.is_file() else {}
        return receipt if isinstance(receipt, dict) else {}

    def confirm_delivery(self, run_id: str, num_events: int) -> None:
        """Records that a run holds the first `num_events` events."""
        receipt = {"run_id": run_id, "num_events": num_events}
        write_atomically(self._receipt, json.dumps(receipt).encode())


def find_cell_folders(
    out: Path, report: Callable[[str], None], storage: Storage | None = None
) -> list[CellFolder]:
    """The folders of all cells below an output folder, those of earlier grids included.

    Args:
        storage: where the trials of this launch keep their files; None for the output folder.
        report: receives a line for each folder that cannot be read; it is left out, and holds up no other.
    """
    folders = []
    for path in sorted((out / "cells").glob("*/run.json")):
        try:
            folder = CellFolder(path.parent, storage)
            folder.check()
            folders.append(folder)
        except UserError as error:
            report(f"{error}; MLflow gets nothing of it")
    return folders


def folders_of_experiment(
    folders: Iterable[CellFolder], experiment: str, cells: Container[str] = ()
) -> list[CellFolder]:
    """The folders of an experiment among those of all experiments that share an output folder.

    Args:
        cells: hashes of cells that are also the experiment's, whichever ran them.
    """
    return [
        folder
        for folder in folders
        if folder.description.experiment in (experiment, None) or folder.description.cell in cells
    ]
