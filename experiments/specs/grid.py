"""Grid: a checked YAML file, and the cells that follow from it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from experiments.cells.cell import Cell
from experiments.places.place import Place, open_place
from experiments.specs.experiment_spec import ExperimentSpec
from experiments.specs.searched_images import SearchedImages
from nas.foundation.errors import UserError

if TYPE_CHECKING:
    from experiments.specs.study_grid import StudyGrid
    from experiments.specs.training_grid import TrainingGrid


@dataclass(frozen=True)
class Plan:
    """What a launch would run, and what it would measure before.

    Attributes:
        cells: all cells, in the order of the YAML file.
        measured: those that wait for no lookup table; of the others, name, target and hash are provisional.
        tables: describe each lookup table that is still to be measured, with the time that it takes. They
            build a network to know it, which takes longer than all else.
    """

    cells: Sequence[Cell]
    measured: Sequence[Cell]
    tables: Sequence[Callable[[], str]]

    @classmethod
    def of(cls, cells: Sequence[Cell]) -> Self:
        """A plan with nothing to measure."""
        return cls(cells, cells, ())


@dataclass(frozen=True)
class Grid(ABC):
    """A YAML file whose fields are all checked.

    Attributes:
        path: of the file.
    """

    path: Path
    spec: ExperimentSpec

    @contextmanager
    def place(self, address: str | None) -> Iterator[Place]:
        """Where its trials run: the cluster at an address, or this machine.

        Raises:
            UserError: the machine is too small, or the cluster cannot be used.
        """
        with open_place(address, self.spec.resources, str(self.path)) as place:
            yield place

    def num_parallel(self, place: Place, num_cells: int) -> int:
        """Number of trials that run at a time."""
        limit = self.spec.resources.max_concurrent_trials or num_cells
        return max(min(place.num_slots(), limit, num_cells), 1)

    @abstractmethod
    def cells(
        self, out: Path, place: Place, report: Callable[[str], None], *, even_if_busy: bool = False
    ) -> Sequence[Cell]:
        """The cells; writes what they need, such as a measured lookup table, into the output folder.

        Before anything is measured, all is checked that can be known before.

        Args:
            report: receives warnings, and a line before anything that takes a while.
            even_if_busy: whether to measure though other processes use the machine, and to use tables that
                were measured so.

        Raises:
            UserError: something that they need is missing or does not fit, or two of them are the same.
        """

    @abstractmethod
    def plan(
        self,
        out: Path,
        scratch: Path,
        place: Place,
        report: Callable[[str], None],
        *,
        even_if_busy: bool = False,
    ) -> Plan:
        """The cells as far as they are known without measuring anything; see `cells`.

        Args:
            scratch: folder for files that the cells need, in place of the output folder.
        """

    def searched_images(self) -> set[SearchedImages]:
        """The images of its searches; none for a grid of trainings."""
        return set()

    def as_study(self) -> "StudyGrid | None":
        """This grid if it is a study."""
        return None

    def as_trainings(self) -> "TrainingGrid":
        """This grid, which must be one of trainings.

        Raises:
            UserError: it is not.
        """
        raise UserError(
            f"{self.path}: architectures: missing; --then-train and `tfnas train` take a file of trainings"
        )
