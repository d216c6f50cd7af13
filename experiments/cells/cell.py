"""A cell of a grid: one search or one training, with a readable name and a hash that identifies it.

Whatever differs between searches and trainings is a method of `Cell`. Those that run where a trial runs
are class methods that take a config: a trial has the config and the kind, not the cell.
"""

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal

from typing_extensions import TypeVar

from experiments.cells.epoch_cost import EpochCost
from experiments.cells.image_survey import ImageSurvey
from nas.config import DataConfig, SearchConfig, TrainConfig
from nas.data.datasets import SOURCE_FIELDS
from nas.data.image_lists import Listing
from nas.foundation.errors import UserError
from nas.foundation.identity import fingerprint
from nas.foundation.world import ALONE, World
from nas.latency.table import LatencyTable
from nas.search.health import HealthCheck
from nas.search.records import EpochRecord
from nas.space.architecture import Architecture
from nas.training.training import NetworkChoice, TrainRecord

if TYPE_CHECKING:
    from experiments.cells.cell_folder import CellFolder

Kind = Literal["search", "train"]
Input = LatencyTable | Architecture | None
Record = EpochRecord | TrainRecord

# Without arguments `Cell` means a cell of any kind.
Config = TypeVar("Config", bound=SearchConfig | TrainConfig, default=Any)
Given = TypeVar("Given", bound=Input, default=Any)

COMMON_COST_FIELDS = {*DataConfig.model_fields, "batch_size", "mixed_precision", "device", "num_threads"}
"""Fields of every kind that decide what an epoch costs."""


@dataclass(frozen=True)
class Cell(ABC, Generic[Config, Given]):
    """One run of a grid.

    Attributes:
        name: for people.
        factors: the fields in which cells of the grid differ.
        config: everything to run.
        data_fingerprint: identifies the images.
        provenance: tags that name source, libraries and device; no part of the identity.
        listing: the image files, which cells of the same images share.
        images: data set, numbers and classes, in one line.
    """

    name: str
    factors: dict[str, Any]
    config: Config
    data_fingerprint: str
    provenance: Mapping[str, str]
    listing: Listing = field(default_factory=dict, kw_only=True, repr=False, compare=False)
    images: str = field(default="", kw_only=True, repr=False, compare=False)

    kind: ClassVar[Kind]
    config_type: ClassVar[type[SearchConfig | TrainConfig]]
    results_version: ClassVar[int]
    noun: ClassVar[str]
    plural: ClassVar[str]
    cost_fields: ClassVar[set[str]]

    subject_heading: ClassVar[str]
    """Column heading of `subject`."""

    result_heading: ClassVar[str]
    """Column heading of `result`."""

    has_health: ClassVar[bool] = False
    """Whether it ends with health checks, see `CellFolder.health`."""

    @property
    @abstractmethod
    def phases(self) -> Sequence[str]:
        """The phase of each epoch, which it costs; a search has several, see `SearchConfig.phases`."""

    # What a trial does, on the machine that it runs on

    @classmethod
    @abstractmethod
    def run(
        cls,
        config: Config,
        given: Given,
        folder: "CellFolder",
        *,
        listing: Listing | None = None,
        warmups_dir: Path | None = None,
        world: World = ALONE,
    ) -> Iterator[Record]:
        """Runs or resumes it; yields every epoch, those done before included, then writes artifacts.

        Args:
            given: what `load_input` returned.
            listing: the image files; None to list them now.
            warmups_dir: folder in which searches share warm-ups, if they do.
            world: processes that train together; this is the first of them.

        Raises:
            UserError, DivergedError: see `run_search` and `run_training`.
        """

    @classmethod
    @abstractmethod
    def list_images(cls, config: Config) -> Listing:
        """The image files that it uses; empty for images in memory.

        Raises:
            UserError: they are missing, or lists or folders are wrong.
        """

    @classmethod
    @abstractmethod
    def look_at_images(cls, config: Config, resolution: int, listing: Listing) -> ImageSurvey:
        """What a launch has to know about the images.

        Raises:
            UserError: they are missing, cannot be read or are too few.
        """

    @classmethod
    def count_weight_steps(cls, config: Config, listing: Listing) -> int:
        """Steps of an epoch that train the weights of a supernet; 0 for a training. Decodes no image file.

        Raises:
            UserError: the images are missing.
        """
        return 0

    @classmethod
    @abstractmethod
    def time_epochs(cls, config: Config, given: Given, listing: Listing) -> EpochCost:
        """Times an epoch of each kind over a few batches, scaled to all images.

        Args:
            given: what `load_input` returned.

        Raises:
            UserError: the images cannot be loaded.
        """

    # What a launch asks, on its own machine

    @classmethod
    @abstractmethod
    def resolution(cls, config: Config) -> int:
        """Height and width of the images, in pixels."""

    @property
    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Everything that determines the result; its `config` are the fields that do."""

    @property
    @abstractmethod
    def input_name(self) -> str:
        """Identifies the input among those of a grid's cells."""

    @abstractmethod
    def load_input(self) -> Given:
        """What a trial needs beside the config: paths of this machine mean nothing there."""

    @property
    @abstractmethod
    def subject(self) -> str:
        """What a dry run shows of it."""

    @abstractmethod
    def result(self, metrics: Mapping[str, float]) -> str:
        """The state after an epoch, beside loss and accuracy, in a few characters."""

    def foresee(self, num_weight_steps: int) -> list[HealthCheck]:
        """The health checks whose outcome is known before it runs.

        Args:
            num_weight_steps: what `count_weight_steps` returned.
        """
        return []

    @property
    def network(self) -> NetworkChoice | None:
        """The network that it trains; None for a search, which finds one."""
        return None

    @cached_property
    def hash(self) -> str:
        """Identifies the cell: equal hashes mean equal results.

        That supposes that image files of equal path, size and label have equal pixels, which are not read
        for it.
        """
        return fingerprint(self.identity)[:32]

    @property
    def effect(self) -> str:
        """Equal for cells of which one is enough: at most a field without an effect sets them apart."""
        return self.hash

    @property
    def listing_key(self) -> str:
        """Equal for cells of a grid that use the same image files."""
        return listing_key(self.config)

    @property
    def warmup(self) -> str:
        """Equal for cells that may share a warm-up, on devices of one type."""
        return self.hash

    @property
    def cost_key(self) -> str:
        """Equal for cells whose epochs cost the same."""
        return fingerprint(self.config.model_dump(mode="json", include=self.cost_fields))

    @property
    def folder_name(self) -> str:
        """A readable, unique file name."""
        return f"{re.sub(r'[^A-Za-z0-9._=-]+', '_', self.name)[:80]}-{self.hash[:10]}"

    @property
    def fields(self) -> dict[str, Any]:
        """The flat config, with the values that JSON has."""
        return dict(self.config.model_dump(mode="json"))

    @property
    def params(self) -> dict[str, str]:
        """The same as text."""
        return {name: str(value) for name, value in self.fields.items()}

    @property
    def tags(self) -> dict[str, str]:
        """Tags of its run that only this kind of cell has."""
        return {}


def listing_key(config: DataConfig) -> str:
    """Identifies all that decides which image files a config names."""
    return fingerprint(config.model_dump(mode="json", include={"dataset", *SOURCE_FIELDS}))


def first_of_each_warmup_first(cells: Sequence[Cell]) -> list[Cell]:
    """Cells in rounds with one cell of each warm-up: those of the same warm-up wait for each other."""
    num_seen: Counter[str] = Counter()
    rounds = []
    for cell in cells:
        rounds.append(num_seen[cell.warmup])
        num_seen[cell.warmup] += 1
    return [cell for _, cell in sorted(zip(rounds, cells, strict=True), key=lambda pair: pair[0])]


def check_distinct(cells: Sequence[Cell], where: str) -> None:
    """Checks that no two cells of a grid are the same.

    Args:
        where: the YAML file, for errors.

    Raises:
        UserError: two are the same; names them by their factors.
    """
    seen: dict[str, Cell] = {}
    for cell in cells:
        other = seen.setdefault(cell.effect, cell)
        if other is not cell:
            raise UserError(
                f"{where}: cells {_describe(other.factors)} and {_describe(cell.factors)} are the same "
                f"{cell.noun}{_difference(other, cell)}; remove one"
            )


def _difference(one: Cell, other: Cell) -> str:
    if one.hash == other.hash:
        return ""
    fields = [name for name in one.factors if one.factors[name] != other.factors.get(name)]
    return f", on which {' and '.join(fields)} has no effect"


def _describe(factors: Mapping[str, Any]) -> str:
    return "{" + ", ".join(f"{field}: {value}" for field, value in factors.items()) + "}"
