"""A figure before it is drawn: its caption, its runs, its numbers, and how to draw it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analysis.reading.captions import name_runs
from analysis.reading.experiment import Experiment
from analysis.reading.run import SEED, Run


@dataclass(frozen=True)
class Drawing:
    """A figure whose numbers are known and that is not drawn yet.

    Attributes:
        name: the stem of its files.
        caption: what it shows, with n; ids of runs are added when it is written.
        runs: the runs whose numbers it shows.
        draw: draws it.
        numbers: what it shows, one row per point or box; no CSV file is written of an empty table.
    """

    name: str
    title: str
    caption: str
    runs: tuple[Run, ...]
    draw: Callable[[], Figure]
    numbers: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def full_caption(self) -> str:
        """The caption with the ids of the runs."""
        return f"{self.caption} {name_runs(self.runs)}"


def tabulate(
    experiment: Experiment, runs: Iterable[Run], rows_of: Callable[[Run], Iterable[Mapping[str, Any]]]
) -> pd.DataFrame:
    """Returns the numbers of a figure: the rows of each run, after its name, id, setting and seed."""
    return pd.DataFrame(
        [
            {
                "trial": run.name,
                "run_id": run.run_id,
                **{factor: run.config.get(factor) for factor in experiment.factors},
                SEED: run.seed,
                **row,
            }
            for run in runs
            for row in rows_of(run)
        ]
    )
