"""From a YAML file to its grid."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.specs.experiment_spec import ExperimentSpec, GridKind, load_spec
from experiments.specs.grid import Grid
from experiments.specs.search_grid import SearchGrid
from experiments.specs.study_grid import StudyGrid
from experiments.specs.training_grid import TrainingGrid

_GRIDS: dict[GridKind, Callable[[Any, Path], Grid]] = {
    "search": SearchGrid.of,
    "study": StudyGrid.of,
    "training": TrainingGrid.of,
}


def load_grid(path: Path) -> Grid:
    """Reads and checks a YAML file of searches, of a study or of trainings.

    Raises:
        UserError: names file, field, value and remedy.
    """
    return grid_of(load_spec(path), path)


def grid_of(spec: ExperimentSpec, path: Path) -> Grid:
    """Checks the fields of all cells of a YAML file.

    Args:
        path: the file, for errors and relative paths.

    Raises:
        UserError: names file, field, value and remedy.
    """
    return _GRIDS[spec.grid_kind](spec, path)
