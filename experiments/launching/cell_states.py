"""States of cells: which are finished, which failed, which have to run and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from experiments.cells.cell import Cell
from experiments.cells.cell_folder import RESULTS_VERSION_TAG, CellFolder, RunDescription
from experiments.tracking.tracker import TrackedCell

State = Literal["finished", "failed", "interrupted", "missing"]


@dataclass(frozen=True)
class CellState:
    """The state of a cell before a launch.

    Attributes:
        num_epochs: epochs that are done.
        reason: for `failed`: why; for `missing`: what changed since a run of the same name.
        is_open: whether an attempt started and did not end: it is running, or was cut off.
    """

    cell: Cell
    state: State
    num_epochs: int = 0
    reason: str = ""
    is_open: bool = False

    def is_to_run(self, retry_failed: bool) -> bool:
        """Whether a launch runs the cell."""
        return self.state in ("missing", "interrupted") or (self.state == "failed" and retry_failed)


def cell_states(cells: Sequence[Cell], tracked: Mapping[str, TrackedCell], out: Path) -> list[CellState]:
    """Looks up every cell, in its folder and in MLflow.

    The folder may know more (if records are not delivered yet) or nothing (if it was deleted).
    """
    return [_state(cell, tracked, CellFolder.of(out, cell)) for cell in cells]


def _state(cell: Cell, tracked: Mapping[str, TrackedCell], folder: CellFolder) -> CellState:
    end, num_epochs = folder.journal.end, len(folder.journal.epochs)
    run = tracked.get(cell.hash)
    outcome = end.outcome if end else (run.status if run and not folder.journal.events else None)
    if outcome == "FINISHED":
        return CellState(cell, "finished", cell.config.num_epochs)
    if outcome == "FAILED":
        reason = end.reason if end else run.failure if run else None
        return CellState(cell, "failed", num_epochs, reason or "unknown reason")
    is_open = end is None and bool(folder.journal.events)
    if num_epochs or run or is_open:
        return CellState(cell, "interrupted", num_epochs, is_open=is_open)
    return CellState(cell, "missing", 0, _why_not_reused(cell, tracked))


def _why_not_reused(cell: Cell, tracked: Mapping[str, TrackedCell]) -> str:
    """What of the identity changed, where a run of the same name is there."""
    namesakes = [run for run in tracked.values() if run.name == cell.name]
    if not namesakes:
        return ""
    description = RunDescription.of(cell)
    fewest = min((_changes(description, run) for run in namesakes), key=lambda changes: len(changes))
    return "changed: " + ", ".join(fewest)


def _changes(description: RunDescription, run: TrackedCell) -> list[str]:
    parts = {
        "lookup table": "tfnas.table_fingerprint",
        "images": "tfnas.data_fingerprint",
        "results version": RESULTS_VERSION_TAG,
    }
    changed = [name for name, tag in parts.items() if description.tags.get(tag) != run.tags.get(tag)]
    fields = [
        f"{name} {run.params.get(name, '(not set)')} -> {value}"
        for name, value in description.params.items()
        if run.params.get(name) != value and name != "latency_table"
    ]
    return [*changed, *fields]
