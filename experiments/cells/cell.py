"""A cell of a grid: one search or one training, with a name for people and a hash that identifies it."""

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

from nas.config import SearchConfig, TrainConfig
from nas.foundation.errors import UserError
from nas.foundation.identity import fingerprint
from nas.latency.table import LatencyTable
from nas.search.search_identity import RESULTS_VERSION as SEARCH_RESULTS_VERSION
from nas.search.search_identity import search_identity, warmup_hash
from nas.space.architecture import Architecture
from nas.space.baselines import find_architecture
from nas.training.training import RESULTS_VERSION as TRAINING_RESULTS_VERSION
from nas.training.training import NetworkChoice, training_identity

Kind = Literal["search", "train"]
Input = LatencyTable | Architecture | None


@dataclass(frozen=True)
class Cell(ABC):
    """One run of a grid.

    Attributes:
        name: for people.
        factors: the fields in which cells of the grid differ.
        config: all that is to be run.
        data_fingerprint: of the images.
        provenance: tags that say what computes it (source, libraries, device), without being part of it.
    """

    name: str
    factors: dict[str, Any]
    config: SearchConfig | TrainConfig
    data_fingerprint: str
    provenance: Mapping[str, str]

    kind: ClassVar[Kind]
    config_type: ClassVar[type[SearchConfig | TrainConfig]]
    results_version: ClassVar[int]
    noun: ClassVar[str]
    plural: ClassVar[str]

    result_heading: ClassVar[str]
    """What `result` tells, for the head of a column."""

    @property
    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """All that determines the result."""

    @property
    @abstractmethod
    def input_name(self) -> str:
        """Identifies the input among those of a grid's cells."""

    @abstractmethod
    def load_input(self) -> Input:
        """What a trial is given beside the config, where paths of this machine mean nothing."""

    @abstractmethod
    def result(self, metrics: Mapping[str, float]) -> str:
        """What an epoch has come to, beside loss and accuracy, in a few letters."""

    @cached_property
    def hash(self) -> str:
        """Identifies the cell: equal hashes mean equal results."""
        return fingerprint(self.identity)[:32]

    @property
    def warmup(self) -> str:
        """Equal for cells that may share a warm-up, on devices of one type."""
        return self.hash

    @property
    def folder_name(self) -> str:
        """A file name that is readable and unique."""
        return f"{re.sub(r'[^A-Za-z0-9._=-]+', '_', self.name)[:80]}-{self.hash[:10]}"

    @property
    def params(self) -> dict[str, str]:
        """The flat config, as text."""
        return {name: str(value) for name, value in self.config.model_dump().items()}

    @property
    def tags(self) -> dict[str, str]:
        """What tracking is told of this kind of cell alone."""
        return {}


@dataclass(frozen=True)
class SearchCell(Cell):
    """One search.

    Attributes:
        name: `bi-sink-T4.0-s0` for instance; unique within its grid.
        config: `latency_table` is the path of a file.
        table_fingerprint: of that table.
    """

    config: SearchConfig
    table_fingerprint: str

    kind = "search"
    config_type = SearchConfig
    results_version = SEARCH_RESULTS_VERSION
    noun = "search"
    plural = "searches"
    result_heading = "latency"

    @property
    def identity(self) -> dict[str, Any]:
        """All that determines the result."""
        return search_identity(self.config, self.table_fingerprint, self.data_fingerprint)

    @cached_property
    def warmup(self) -> str:
        """A hash of what its warm-up epochs depend on."""
        return warmup_hash(self.config, self.data_fingerprint, self.config.device)

    @property
    def input_name(self) -> str:
        """The lookup table's fingerprint."""
        return self.table_fingerprint

    def load_input(self) -> LatencyTable:
        """The lookup table."""
        return LatencyTable.load(self.config.latency_table)

    def result(self, metrics: Mapping[str, float]) -> str:
        """The derived network's latency and the target."""
        latency_ms = metrics.get("derived_latency_ms")
        shown = "-" if latency_ms is None else f"{latency_ms:.3g}"
        return f"{shown} of {self.config.target_latency_ms:.3g} ms"

    @property
    def tags(self) -> dict[str, str]:
        """The lookup table."""
        return {"tfnas.table_fingerprint": self.table_fingerprint}


@dataclass(frozen=True)
class TrainingCell(Cell):
    """One training.

    Attributes:
        name: `train-efficientnet_b0-s0` for instance.
        config: `architecture` may be a file that was downloaded.
        architecture: what the person named, `run:RUN_ID` for instance.
        search_run: the MLflow run that found the network, if one did.
    """

    config: TrainConfig
    architecture: str
    search_run: str | None = None

    kind = "train"
    config_type = TrainConfig
    results_version = TRAINING_RESULTS_VERSION
    noun = "training"
    plural = "trainings"
    result_heading = "best epoch"

    @property
    def identity(self) -> dict[str, Any]:
        """All that determines the result."""
        return training_identity(self.config, self.data_fingerprint) | {"search run": self.search_run}

    @property
    def input_name(self) -> str:
        """The network's file or name."""
        return self.config.architecture

    def load_input(self) -> Architecture | None:
        """The architecture; None for a network of torchvision's."""
        return find_architecture(self.config.architecture)

    def result(self, metrics: Mapping[str, float]) -> str:
        """The best epoch so far."""
        return f"{metrics['best_epoch']:.0f}" if "best_epoch" in metrics else "-"

    @property
    def params(self) -> dict[str, str]:
        """The flat config, as text, with what the person named."""
        resolution = str(NetworkChoice.of(self.config).resolution)
        return super().params | {"architecture": self.architecture, "resolution": resolution}

    @property
    def tags(self) -> dict[str, str]:
        """The search that found the network."""
        return {} if self.search_run is None else {"tfnas.search_run": self.search_run}


def first_of_each_warmup_first(cells: list[Cell]) -> list[Cell]:
    """The cells in turns, one of each warm-up a turn: those of one warm-up wait for each other."""
    num_seen: Counter[str] = Counter()
    turns = []
    for cell in cells:
        turns.append(num_seen[cell.warmup])
        num_seen[cell.warmup] += 1
    return [cell for _, cell in sorted(zip(turns, cells, strict=True), key=lambda pair: pair[0])]


def check_distinct(cells: list[Cell], where: str) -> None:
    """Makes sure that no two cells of a grid are the same.

    Args:
        where: the YAML file, for errors.

    Raises:
        UserError: two are; names them by their factors.
    """
    seen: dict[str, Cell] = {}
    for cell in cells:
        if cell.hash in seen:
            raise UserError(
                f"{where}: cells {_describe(seen[cell.hash].factors)} and {_describe(cell.factors)} are the "
                f"same {cell.noun}; remove one"
            )
        seen[cell.hash] = cell


def _describe(factors: Mapping[str, Any]) -> str:
    return "{" + ", ".join(f"{field}: {value}" for field, value in factors.items()) + "}"


CELLS: dict[Kind, type[Cell]] = {"search": SearchCell, "train": TrainingCell}
"""The kinds of cells."""
