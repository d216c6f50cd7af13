"""Live progress of a launch: a table on a terminal, plain lines elsewhere."""

import math
from collections.abc import Mapping, Sequence
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from experiments.cells.cell import Cell
from experiments.cells.journal import Outcome
from experiments.console import format_duration, say
from experiments.launching.cell_table import CellRow, explain_marks, make_table
from experiments.launching.time_left import EpochTimes, left_phases, wall_time_s
from nas.search.health import HealthCheck

_MAX_ROWS = 24
_BAR_WIDTH = 24

_STATES: Mapping[Outcome, str] = {
    "FINISHED": "finished",
    "FAILED": "failed",
    "KILLED": "interrupted",
    "PRUNED": "pruned",
}
_ORDER = ("running", "failed", "interrupted", "waiting", "pruned", "finished")


class Progress:
    """Shows the progress of a launch while its context is open.

    Args:
        num_done: cells of the grid that are done already.
        num_to_come: cells that will be added.
        shares_warmups: whether a cell takes its warm-up from another one that has it.
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
        shares_warmups: bool = False,
        explains_health: bool = True,
    ) -> None:
        self._console = console
        self._rows = {cell.hash: CellRow(cell, "waiting") for cell in cells}
        self._checks: dict[str, Sequence[HealthCheck]] = {}
        self._times = EpochTimes()
        self._num_done = num_done
        self._num_parallel = num_parallel
        self._num_to_come = num_to_come
        self._shares_warmups = shares_warmups
        self._explains_health = explains_health
        self._live = Live(console=console, get_renderable=self._view, refresh_per_second=2)

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
            self._rows[cell.hash] = CellRow(cell, "waiting")
            self._num_to_come = max(self._num_to_come - 1, 0)

    def start(self, cell: Cell) -> None:
        """Shows that the trial of a cell starts or restarts."""
        self._rows[cell.hash].state = "running"

    def add_epoch(self, cell: Cell, epoch: int, metrics: Mapping[str, float]) -> None:
        """Shows an epoch that is done."""
        row = self._rows[cell.hash]
        # A process takes longer for its first epoch, while it fills its caches.
        if row.metrics and "epoch_seconds" in metrics:
            self._times.add(cell, epoch, metrics["epoch_seconds"])
        row.epoch, row.metrics = epoch, metrics
        self._estimate()
        if not self._console.is_terminal:
            loss = _format(metrics.get("train_loss"))
            quality = f"loss {loss}, accuracy {row.accuracy}, {cell.result_heading} {cell.result(metrics)}"
            left = "" if math.isnan(row.left_s) else f", {format_duration(row.left_s)} left"
            self.note(f"{cell.name}: epoch {row.epochs}, {quality}{left}")

    def show_health(self, cell: Cell, checks: Sequence[HealthCheck]) -> None:
        """Shows the health checks of a search that is about to end."""
        self._checks[cell.hash] = checks
        self._rows[cell.hash].is_healthy = all(check.is_healthy for check in checks) if checks else None

    def end(self, cell: Cell, outcome: Outcome, reason: str | None) -> None:
        """Shows how the trial of a cell ended."""
        row = self._rows[cell.hash]
        row.state = _STATES[outcome]
        if not self._console.is_terminal or reason:
            for line in self._endings(row, reason):
                self.note(f"{cell.name}: {line}")

    def _endings(self, row: CellRow, reason: str | None) -> list[str]:
        """How a cell ended, in a line; of an unhealthy search, if asked, a line for each finding."""
        if row.state != "finished" or row.is_healthy is None:
            return [f"{row.state}: {reason}" if reason else row.state]
        findings = [check for check in self._checks[row.cell.hash] if not check.is_healthy]
        if not findings:
            return ["finished; healthy"]
        if not self._explains_health:
            return [f"finished; unhealthy: {', '.join(check.name for check in findings)}"]
        return [f"finished; unhealthy: {check}" for check in findings]

    def _view(self) -> RenderableType:
        rows = sorted(self._rows.values(), key=lambda row: _ORDER.index(row.state))
        if not rows:
            # A study before its first point.
            return Table()
        shown = rows[:_MAX_ROWS]
        notes = [f"and {len(rows) - len(shown)} more"] if len(shown) < len(rows) else []
        notes += [marks] if (marks := explain_marks(shown, self._console)) else []
        return Group(self._bar(), make_table(shown, self._console), *notes)

    def _bar(self) -> RenderableType:
        """All cells in one bar, with the time left."""
        done, left_s = self._done_and_left()
        bar = Table.grid(padding=(0, 2, 0, 0))
        left = "" if math.isnan(left_s) else f"about {format_duration(left_s)} left"
        bar.add_row(ProgressBar(total=1, completed=done, width=_BAR_WIDTH), self._summary(), left)
        return bar

    def _summary(self) -> str:
        states = [row.state for row in self._rows.values()]
        num_done = self._num_done + states.count("finished") + states.count("pruned")
        plural = next(iter(self._rows.values())).cell.plural
        num_cells = self._num_done + len(states) + self._num_to_come
        failed = f", {states.count('failed')} failed" if "failed" in states else ""
        return f"{num_done} of {num_cells} {plural} done{failed}"

    def _estimate(self) -> None:
        warm = self._warm()
        for row in self._rows.values():
            if row.state in ("waiting", "running"):
                row.left_s = self._times.epochs_s(row.cell, left_phases(row.cell, row.epoch, warm))

    def _warm(self) -> set[str]:
        """The warm-ups that waiting cells need not run."""
        if not self._shares_warmups:
            return set()
        rows = [row for row in self._rows.values() if row.epoch >= list(row.cell.phases).count("warmup")]
        return {row.cell.warmup for row in rows}

    def _done_and_left(self) -> tuple[float, float]:
        """The share of the work that is done, and the seconds left; these are NaN before much is known."""
        open_rows = [row for row in self._rows.values() if row.state in ("waiting", "running")]
        typical = max(self._rows.values(), key=lambda row: len(row.cell.phases)).cell
        to_come_s = [self._times.epochs_s(typical, typical.phases)] * self._num_to_come
        left_s = [*(row.left_s for row in open_rows), *to_come_s]
        done_s = math.fsum(
            self._times.epochs_s(row.cell, row.cell.phases[: row.epoch]) for row in self._rows.values()
        )
        all_s = done_s + math.fsum(left_s)
        done = done_s / all_s if all_s > 0 else 0.0
        return done, wall_time_s(left_s, self._num_parallel)


def _format(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"
