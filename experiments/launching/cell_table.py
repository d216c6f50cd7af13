"""A table of cells that fits 80 columns: what state they are in and what came out so far."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.cells.cell import Cell
from experiments.console import format_duration

_STYLES = {"failed": "red", "finished": "green", "pruned": "dim", "waiting": "dim", "missing": "dim"}

_MARKS = {"healthy": ("✓", "ok"), "unhealthy": ("!", "!")}
"""Marks of health, each with one for terminals without Unicode."""


@dataclass
class CellRow:
    """What a table shows of a cell.

    Attributes:
        state: waiting, running, finished, failed, pruned, interrupted, missing or deleted.
        epoch: epochs that are done.
        metrics: of the last epoch.
        left_s: estimated seconds that it still runs; NaN if unknown.
        is_healthy: whether all health checks passed; None without any.
        reason: why it failed, or is to run again; too long for the table.
    """

    cell: Cell
    state: str
    epoch: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    left_s: float = math.nan
    is_healthy: bool | None = None
    reason: str = ""

    @property
    def epochs(self) -> str:
        """Epochs that are done, of all."""
        return f"{self.epoch}/{len(self.cell.phases)}"

    @property
    def accuracy(self) -> str:
        """The held-out accuracy; `-` if unknown."""
        value = self.metrics.get("val_accuracy", math.nan)
        return "-" if math.isnan(value) else f"{value:.3f}"

    @property
    def standing(self) -> str:
        """The state, or how long a running cell still takes."""
        is_known = self.state == "running" and not math.isnan(self.left_s)
        return f"{format_duration(self.left_s)} left" if is_known else self.state


def make_table(rows: Sequence[CellRow], console: Console) -> Table:
    """Lays out the rows; names are cut if the console is too narrow for all columns."""
    first = rows[0].cell
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in (
        *(("",) if first.has_health else ()),
        first.noun,
        "epoch",
        "accuracy",
        first.result_heading,
        "state",
    ):
        is_number = heading in ("epoch", "accuracy", first.result_heading)
        table.add_column(heading, justify="right" if is_number else "left", no_wrap=heading != first.noun)
    for row in rows:
        cells = [
            *((_mark(row.is_healthy, console),) if first.has_health else ()),
            # Only this column gives way.
            Text(row.cell.name, no_wrap=True, overflow="ellipsis"),
            row.epochs,
            row.accuracy,
            row.cell.result(row.metrics),
            row.standing,
        ]
        table.add_row(*cells, style=_STYLES.get(row.state))
    return table


def explain_marks(rows: Sequence[CellRow], console: Console) -> str:
    """What the marks of health in a table mean; empty without any."""
    meanings = {True: "healthy", False: "has findings, see `tfnas health`"}
    found = [value for value in (True, False) if any(row.is_healthy is value for row in rows)]
    return "   ".join(f"{_mark(value, console)} {meanings[value]}" for value in found)


def _mark(is_healthy: bool | None, console: Console) -> str:
    if is_healthy is None:
        return ""
    unicode_mark, plain_mark = _MARKS["healthy" if is_healthy else "unhealthy"]
    return unicode_mark if console.encoding.lower().startswith("utf") else plain_mark
