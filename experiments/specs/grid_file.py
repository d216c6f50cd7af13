"""From a YAML file to its grid."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from experiments.specs.experiment_spec import ExperimentSpec, GridKind, load_spec
from experiments.specs.grid import Grid
from experiments.specs.search_grid import SearchGrid
from experiments.specs.settings import Setting
from experiments.specs.study_grid import StudyGrid
from experiments.specs.training_grid import TrainingGrid

_GRIDS: dict[GridKind, Callable[[Any, Path], Grid]] = {
    "search": SearchGrid.of,
    "study": StudyGrid.of,
    "training": TrainingGrid.of,
}


def load_grid(path: Path, settings: Sequence[Setting] = ()) -> Grid:
    """Reads and checks a YAML file of searches, of a study or of trainings.

    Args:
        settings: change its content before it is checked.

    Raises:
        UserError: names file, field, value and remedy.
    """
    return grid_of(load_spec(path, settings), path)


def grid_of(spec: ExperimentSpec, path: Path) -> Grid:
    """Checks the fields of all cells of a YAML file.

    Args:
        path: the file, for errors and relative paths.

    Raises:
        UserError: names file, field, value and remedy.
    """
    return _GRIDS[spec.grid_kind](spec, path)
