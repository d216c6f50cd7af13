"""Why a figure or a table is left out of an experiment."""

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

if TYPE_CHECKING:
    from analysis.reading.experiment import Experiment

Rest = ParamSpec("Rest")
Made = TypeVar("Made")


class NothingToDrawError(Exception):
    """The experiment lacks what a figure or table needs; the message names it."""


class OutOfPlaceError(NothingToDrawError):
    """Nobody would look for this figure or table here, so it is left out without a message."""


def for_grids(
    make: Callable[Concatenate["Experiment", Rest], Made],
) -> Callable[Concatenate["Experiment", Rest], Made]:
    """Decorates what makes a figure or a table of settings: studies have none to compare.

    Each search of a study has its own values of several fields, so no two of them differ in one thing only.
    """

    @wraps(make)
    def make_for_grid(experiment: "Experiment", /, *args: Rest.args, **kwargs: Rest.kwargs) -> Made:
        if experiment.is_study:
            raise OutOfPlaceError("a study compares no settings")
        return make(experiment, *args, **kwargs)

    return make_for_grid
