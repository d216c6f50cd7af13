"""Live progress of a launch: a table on a terminal, plain lines elsewhere."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from experiments.cells.cell import Cell
from experiments.cells.journal import Outcome
from experiments.console import format_count, format_duration, say
from nas.search.health import HealthCheck

_MAX_ROWS = 24


@dataclass
class _Row:
    """One cell; `state` is `waiting`, `running` or an outcome, `checks` are empty before the end."""

    cell: Cell
    state: str = "waiting"
    epoch: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    checks: Sequence[HealthCheck] = ()

    @property
    def seconds_left(self) -> float:
        """Estimated from the last epoch; too low in warm-up, whose epochs are cheaper than joint ones."""
        num_left = len(self.cell.phases) - self.epoch
        return num_left * self.metrics.get("epoch_seconds", math.nan)

    @property
    def texts(self) -> dict[str, str]:
        """What the table shows beside the name, by column."""
        return {
            "state": _word(self.state),
            "epoch": f"{self.epoch}/{len(self.cell.phases)}",
            "loss": _format(self.metrics.get("train_loss"), ".3f"),
            "accuracy": _format(self.metrics.get("val_accuracy"), ".3f"),
            self.cell.result_heading: self.cell.result(self.metrics),
            **({"health": self.health} if self.cell.has_health else {}),
            "left": format_duration(self.seconds_left) if self.state == "running" else "",
        }

    @property
    def health(self) -> str:
        """`ok`, or the number of findings; `-` before the end."""
        if not self.checks:
            return "-"
        num_findings = sum(not check.is_healthy for check in self.checks)
        return format_count(num_findings, "finding") if num_findings else "ok"

    def endings(self, *, explains_health: bool) -> list[str]:
        """How it ended, in a line; of an unhealthy search, if asked, a line for each finding."""
        if self.state != "FINISHED" or not self.checks:
            return [f"{_word(self.state)}{': ' + self.reason if self.reason else ''}"]
        findings = [check for check in self.checks if not check.is_healthy]
        if not findings:
            return ["finished; healthy"]
        if not explains_health:
            return [f"finished; unhealthy: {', '.join(check.name for check in findings)}"]
        return [f"finished; unhealthy: {check}" for check in findings]


class Progress:
    """Shows the progress of a launch while its context is open.

    Args:
        num_done: cells of the grid that are done already.
        num_to_come: cells that will be added.
        explains_health: whether each finding has a line, with what to change; for a study, whose points may
            be far from healthy, the names are enough.
    """

    def __init__(
        self,
        console: Console,
        cells: Sequence[Cell],
        num_done: int,
        num_parallel: int,
        num_to_come: int = 0,
        *,
        explains_health: bool = True,
    ) -> None:
        self._console = console
        self._rows = {cell.hash: _Row(cell) for cell in cells}
        self._num_done = num_done
        self._num_parallel = num_parallel
        self._num_to_come = num_to_come
        self._explains_health = explains_health
        self._live = Live(console=console, get_renderable=self._table, refresh_per_second=2)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def note(self, message: str) -> None:
        """Prints a message above the table."""
        say(self._console, message)

    def add(self, cell: Cell) -> None:
        """Adds a cell to the launch."""
        if cell.hash not in self._rows:
            self._rows[cell.hash] = _Row(cell)
            self._num_to_come = max(self._num_to_come - 1, 0)

    def start(self, cell: Cell) -> None:
        """Shows that the trial of a cell starts or restarts."""
        self._rows[cell.hash].state = "running"

    def add_epoch(self, cell: Cell, epoch: int, metrics: Mapping[str, float]) -> None:
        """Shows an epoch that is done."""
        row = self._rows[cell.hash]
        row.epoch, row.metrics = epoch, metrics
        if not self._console.is_terminal:
            texts = row.texts
            quality = ", ".join(f"{name} {texts[name]}" for name in ("loss", "accuracy", cell.result_heading))
            self.note(f"{cell.name}: epoch {texts['epoch']}, {quality}, {texts['left']} left")

    def show_health(self, cell: Cell, checks: Sequence[HealthCheck]) -> None:
        """Shows the health checks of a search that is about to end."""
        self._rows[cell.hash].checks = checks

    def end(self, cell: Cell, outcome: Outcome, reason: str | None) -> None:
        """Shows how the trial of a cell ended."""
        row = self._rows[cell.hash]
        row.state, row.reason = outcome, reason or ""
        if not self._console.is_terminal or reason:
            for line in row.endings(explains_health=self._explains_health):
                self.note(f"{cell.name}: {line}")

    def _table(self) -> Table:
        rows = sorted(self._rows.values(), key=lambda row: _ORDER.index(row.state))[:_MAX_ROWS]
        if not rows:
            # A study before its first point.
            return Table()
        table = Table(title=self._title(), title_justify="left", caption_justify="left")
        table.add_column(rows[0].cell.noun, no_wrap=True)
        for name in rows[0].texts:
            table.add_column(name, justify="right", no_wrap=True)
        for row in rows:
            table.add_row(row.cell.name, *row.texts.values(), style=_STYLES.get(row.state))
        if len(rows) < len(self._rows):
            table.caption = f"and {len(self._rows) - len(rows)} more"
        return table

    def _title(self) -> str:
        states = [row.state for row in self._rows.values()]
        num_done = self._num_done + states.count("FINISHED") + states.count("PRUNED")
        plural = next(iter(self._rows.values())).cell.plural
        num_cells = self._num_done + len(states) + self._num_to_come
        title = f"{num_done} of {num_cells} {plural} done"
        if states.count("FAILED"):
            title += f", {states.count('FAILED')} failed"
        left_s = self._seconds_left()
        return title if math.isnan(left_s) else f"{title}, about {format_duration(left_s)} left"

    def _seconds_left(self) -> float:
        """Estimated from all epochs so far, for waiting and running cells alike."""
        seen = [row.metrics["epoch_seconds"] for row in self._rows.values() if row.metrics]
        if not seen:
            return math.nan
        num_epochs = sum(
            len(row.cell.phases) - row.epoch
            for row in self._rows.values()
            if row.state in ("waiting", "running")
        )
        num_epochs += self._num_to_come * max(len(row.cell.phases) for row in self._rows.values())
        return num_epochs * sum(seen) / len(seen) / self._num_parallel


_STYLES = {"FAILED": "red", "FINISHED": "green", "PRUNED": "dim", "waiting": "dim"}
_ORDER = ("running", "FAILED", "KILLED", "waiting", "PRUNED", "FINISHED")


def _word(state: str) -> str:
    return "interrupted" if state == "KILLED" else state.lower()


def _format(value: float | None, form: str) -> str:
    return "-" if value is None or math.isnan(value) else format(value, form)
