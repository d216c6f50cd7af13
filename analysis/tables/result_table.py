"""What a table is: numbers in rows and columns, before they are written."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from analysis.measures import MEASURES
from analysis.measures.measure import Measure, Numbers
from analysis.measures.sign_flips import MIN_VALUES
from analysis.measures.summary import Summary, summarize
from analysis.reading.captions import name_runs
from analysis.reading.run import Run
from analysis.reading.values import Value
from nas.foundation.escaping import escape_unprintable

TableCell = Value | Summary

NOTHING = "–"
INTERVALS = "mean over seeds with the 95 % interval (none with fewer than 7 seeds)"


@dataclass(frozen=True)
class Column:
    """A column: its name in CSV files, its heading for people, the decimals of its numbers.

    Decimals are None for settings, which are shown as they are. `better` is that of a measure.
    """

    name: str
    heading: str
    digits: int | None = None
    better: Literal["less", "greater"] | None = None


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
    return [Column(measure.name, measure.heading, measure.digits, measure.better) for measure in measures]


def measures_of_table(table: str, runs: Sequence[Run], numbers: Numbers) -> tuple[Measure, ...]:
    """Returns the measures that a table shows, except those that no run has."""
    return tuple(
        measure
        for measure in MEASURES.values()
        if table in measure.tables and not all(math.isnan(numbers[run.run_id][measure.name]) for run in runs)
    )


def summarize_measures(runs: Sequence[Run], measures: Iterable[Measure], numbers: Numbers) -> list[Summary]:
    """Returns mean and interval of each measure over runs."""
    return [
        summarize([numbers[run.run_id][measure.name] for run in runs], measure.bounds) for measure in measures
    ]


def explain_measures(measures: Iterable[Measure]) -> str:
    """Explains each heading, in one sentence."""
    return "; ".join(f"{measure.heading}: {measure.title}" for measure in measures) + "."


def cell_texts(table: ResultTable) -> list[list[str]]:
    """Returns the rows as people read them."""
    return [
        [_show(cell, column.digits) for cell, column in zip(row, table.columns, strict=True)]
        for row in table.rows
    ]


def best_cells(table: ResultTable) -> set[tuple[int, int]]:
    """Returns row and column of the best means, and of those that cannot be distinguished from them.

    A mean can be distinguished if neither its interval contains the best one, nor the other way round. Only
    rows of one latency target are compared, all with enough seeds for an interval; and nothing is best if all
    of them are.
    """
    targets = [index for index, column in enumerate(table.columns) if column.name == "target_latency_ms"]
    groups: dict[tuple[TableCell, ...], list[int]] = {}
    for index, row in enumerate(table.rows):
        groups.setdefault(tuple(row[target] for target in targets), []).append(index)
    found: set[tuple[int, int]] = set()
    for place, column in enumerate(table.columns):
        for rows in groups.values() if column.better else ():
            cells = {row: table.rows[row][place] for row in rows}
            means = {row: cell for row, cell in cells.items() if isinstance(cell, Summary)}
            if any(mean.n < MIN_VALUES for mean in means.values()):
                continue
            best = _best_of(means, column)
            found |= {(row, place) for row in best} if len(best) < len(means) else set()
    return found


def _best_of(means: Mapping[int, Summary], column: Column) -> list[int]:
    """The rows whose mean is the best, as shown or within an interval."""
    if not means:
        return []
    choose = max if column.better == "greater" else min
    best = choose(means.values(), key=lambda one: one.mean)
    return [
        row
        for row, one in means.items()
        if round(one.mean, column.digits or 0) == round(best.mean, column.digits or 0)
        or _contains(one, best.mean)
        or _contains(best, one.mean)
    ]


def _contains(summary: Summary, value: float) -> bool:
    return summary.interval is not None and summary.interval[0] <= value <= summary.interval[1]


def _show(cell: TableCell, digits: int | None) -> str:
    if cell is None:
        return NOTHING
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, Summary):
        return _show_summary(cell, digits or 0)
    if isinstance(cell, float):
        return f"{cell:.4g}" if digits is None else f"{cell:.{digits}f}"
    return escape_unprintable(str(cell))


def _show_summary(summary: Summary, digits: int) -> str:
    """The mean with its interval, which is a ± if both sides are equally long as shown."""
    if not summary.n:
        return NOTHING
    mean = f"{summary.mean:.{digits}f}"
    if summary.interval is None:
        return mean
    low, high = summary.interval
    below, above = (f"{side:.{digits}f}" for side in (summary.mean - low, high - summary.mean))
    return f"{mean} ± {above}" if below == above else f"{mean} [{low:.{digits}f}, {high:.{digits}f}]"
