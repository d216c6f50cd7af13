"""What a measure is: a number of a run, with the words that tables and claims show it under."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from analysis.reading.experiment import Experiment
    from analysis.reading.run import Run

Numbers = Mapping[str, Mapping[str, float]]
"""The value of each measure by name, for each run id; NaN where a run lacks it."""


@dataclass(frozen=True)
class Measure:
    """A number of a run.

    Attributes:
        name: its column in CSV files.
        heading: its column for people, a few letters.
        title: what it is, with its unit.
        digits: how many decimals are shown.
        compute: computes it from a finished run and the run's experiment; NaN where the run lacks it.
        tables: names of the tables of settings that show it.
        bounds: smallest and largest possible value; None if there is none.
        comes_later: whether a finished run may still get it, such as the accuracy of its network once
            that is trained. A run that lacks any other measure never gets it.
        better: which values are; None if neither larger nor smaller ones are.
    """

    name: str
    heading: str
    title: str
    digits: int
    compute: Callable[["Run", "Experiment"], float]
    tables: tuple[str, ...] = ("ablation",)
    bounds: tuple[float, float] | None = None
    comes_later: bool = False
    better: Literal["less", "greater"] | None = None

    @property
    def difference_bounds(self) -> tuple[float, float] | None:
        """Smallest and largest possible difference of two values."""
        return (
            None
            if self.bounds is None
            else (self.bounds[0] - self.bounds[1], self.bounds[1] - self.bounds[0])
        )
