"""The kinds of cells, by the name that a trial receives."""

from experiments.cells.cell import Cell, Kind
from experiments.cells.search_cell import SearchCell
from experiments.cells.training_cell import TrainingCell

CELLS: dict[Kind, type[Cell]] = {"search": SearchCell, "train": TrainingCell}
