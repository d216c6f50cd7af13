"""A hyper-parameter study: its points, how much each field matters, and which points are best.

It is read from the files of the study's own run in MLflow: `study.json` holds the settings of the study,
`trials.csv` the outcome of each point.

Shapes: N complete points, K objectives.
"""

import json
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.reading.run import Run
from analysis.reading.run_store import RunStore
from analysis.reading.values import Value
from nas.foundation.errors import UserError


@dataclass(frozen=True)
class RecordedObjective:
    """A metric that a study optimizes."""

    metric: str
    is_maximized: bool


@dataclass(frozen=True)
class Field:
    """A config field that a study varies.

    Attributes:
        choices: as text; None for an interval.
        is_log: whether it was varied on a log scale.
        text: its domain in a few words.
    """

    name: str
    choices: tuple[str, ...] | None
    is_log: bool
    text: str


@dataclass(frozen=True)
class FieldImportance:
    """Share of the variance of a metric that a field explains alone.

    Attributes:
        chance: largest share found with shuffled values; NaN if that was not tried.
        num_trials: points that both shares are computed from.
    """

    field: str
    metric: str
    share: float
    chance: float
    num_trials: int

    @property
    def is_above_chance(self) -> bool:
        """Whether the share exceeds what shuffled values reached, if that was tried."""
        return not self.share <= self.chance


@dataclass(frozen=True)
class StudyRecord:
    """A study as its run in MLflow keeps it.

    Attributes:
        run_id: id of the study's run, the parent of its searches.
        about: sampler, budget, pruning and seeds.
        points: one row per point that has ended: number, state, objectives, fields, failure.
        searches: ids of the runs of its searches.
    """

    name: str
    run_id: str
    about: Mapping[str, Any]
    objectives: tuple[RecordedObjective, ...]
    fields: tuple[Field, ...]
    importances: tuple[FieldImportance, ...]
    points: pd.DataFrame = field(repr=False)
    searches: frozenset[str] = field(repr=False)

    @cached_property
    def complete(self) -> pd.DataFrame:
        """The points that have values."""
        return self.points[self.points["state"] == "COMPLETE"]

    @property
    def values_NK(self) -> NDArray[np.float64]:
        """The values of the complete points."""
        return self.complete[[one.metric for one in self.objectives]].to_numpy(np.float64)

    def best(self, num_best: int = 3) -> pd.DataFrame:
        """Returns the Pareto front for several objectives, or the best few points for one."""
        order = nondominated(self.values_NK, self.objectives)
        if len(self.objectives) == 1:
            sign = -1 if self.objectives[0].is_maximized else 1
            order = np.argsort(sign * self.values_NK[:, 0], kind="stable")[:num_best]
        return self.complete.iloc[order]

    @property
    def seeds_text(self) -> str:
        """The seeds behind its values, for people."""
        seeds = self.about["seeds"]
        return f"of seed {seeds[0]}" if len(seeds) == 1 else f"means over seeds {', '.join(map(str, seeds))}"

    def count(self, state: str) -> int:
        """Counts the points in a state: COMPLETE, PRUNED or FAIL."""
        return int((self.points["state"] == state).sum())


def nondominated(
    values_NK: NDArray[np.float64], objectives: Sequence[RecordedObjective]
) -> NDArray[np.int64]:
    """Returns the indices of the points that no other point dominates, sorted by the first objective.

    A point dominates another if it is at least as good in all objectives and better in one.
    """
    signs_K = np.array([-1.0 if one.is_maximized else 1.0 for one in objectives])
    costs_NK = values_NK * signs_K
    kept = [
        place
        for place, cost_K in enumerate(costs_NK)
        if not ((costs_NK <= cost_K).all(axis=1) & (costs_NK < cost_K).any(axis=1)).any()
    ]
    return np.array(sorted(kept, key=lambda place: values_NK[place].tolist()), np.int64)


def read_study(run: Run, store: RunStore, searches: Collection[str]) -> StudyRecord | None:
    """Reads the study of a run; None if the run has no results yet.

    Args:
        searches: ids of the runs of its searches.

    Raises:
        UserError: the store cannot be read, or the results are damaged.
    """
    with tempfile.TemporaryDirectory() as folder:
        about_path, points_path = (
            store.fetch(run, name, Path(folder)) for name in ("study.json", "trials.csv")
        )
        if about_path is None or points_path is None:
            return None
        try:
            return _parse(run.run_id, about_path, points_path, searches)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"study of run {run.short_id}: study.json or trials.csv is damaged ({error}); launch the "
                "study again, which writes them anew"
            ) from None


def _parse(run_id: str, about_path: Path, points_path: Path, searches: Collection[str]) -> StudyRecord:
    about = json.loads(about_path.read_text(encoding="utf-8"))
    space = {name: _field(name, domain) for name, domain in about.pop("space").items()}
    as_text = {name: str for name, one in space.items() if one.choices is not None}
    objectives = tuple(
        RecordedObjective(entry["metric"], entry["direction"] == "maximize")
        for entry in about.pop("objectives")
    )
    importances = tuple(
        FieldImportance(**entry | {"chance": float("nan") if entry["chance"] is None else entry["chance"]})
        for entry in about.pop("importances")
    )
    return StudyRecord(
        about.pop("name"),
        run_id,
        about,
        objectives,
        tuple(space.values()),
        importances,
        pd.read_csv(points_path, dtype=as_text, keep_default_na=False, na_values=[""]),
        frozenset(searches),
    )


def _field(name: str, domain: Mapping[str, Any]) -> Field:
    choices = domain["choices"]
    if choices is not None:
        return Field(name, tuple(map(_as_csv, choices)), False, domain["text"])
    return Field(name, None, domain["log"], domain["text"])


def _as_csv(choice: Value) -> str:
    """A choice as a CSV file writes it."""
    return "None" if choice is None else str(choice)
