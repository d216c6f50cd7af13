"""What a table is: numbers in rows and columns, before they are written."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from analysis.measures import MEASURES
from analysis.measures.measure import Measure, Numbers
from analysis.measures.summary import Summary, summarize
from analysis.reading.captions import name_runs
from analysis.reading.run import Run
from analysis.reading.values import Value

TableCell = Value | Summary

INTERVALS = "mean over seeds with the 95 % interval (none with fewer than 7 seeds)"


@dataclass(frozen=True)
class Column:
    """A column: its name in CSV files, its heading for people, the decimals of its numbers.

    Decimals are None for settings, which are shown as they are.
    """

    name: str
    heading: str
    digits: int | None = None


@dataclass(frozen=True)
class ResultTable:
    """A table of numbers.

    Attributes:
        name: the stem of its files.
        rows: one cell per column; a `Summary` is shown as mean and interval.
        rule_before: index of the row with a rule above it, to set published rows apart; or None.
    """

    name: str
    title: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[TableCell, ...], ...]
    runs: tuple[Run, ...]
    rule_before: int | None = None

    @property
    def full_caption(self) -> str:
        """The caption with the ids of the runs."""
        return f"{self.caption} {name_runs(self.runs)}"


def factor_columns(factors: Iterable[str]) -> list[Column]:
    """Returns a column for each config field."""
    return [Column(factor, factor.replace("_", " ")) for factor in factors]


def measure_columns(measures: Iterable[Measure]) -> list[Column]:
    """Returns a column for each measure."""
    return [Column(measure.name, measure.heading, measure.digits) for measure in measures]


def measures_of_table(table: str, runs: Sequence[Run], numbers: Numbers) -> tuple[Measure, ...]:
    """Returns the measures that a table shows, except those that no run has."""
    return tuple(
        measure
        for measure in MEASURES.values()
        if table in measure.tables and not all(math.isnan(numbers[run.run_id][measure.name]) for run in runs)
    )


def summarize_measures(runs: Sequence[Run], measures: Iterable[Measure], numbers: Numbers) -> list[Summary]:
    """Returns mean and interval of each measure over runs."""
    return [summarize([numbers[run.run_id][measure.name] for run in runs]) for measure in measures]


def explain_measures(measures: Iterable[Measure]) -> str:
    """Explains each heading, in one sentence."""
    return "; ".join(f"{measure.heading}: {measure.title}" for measure in measures) + "."
