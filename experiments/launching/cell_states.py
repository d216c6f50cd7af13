"""States of cells: which are finished, which failed, which have to run and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from experiments.cells.cell import Cell
from experiments.cells.cell_folder import (
    CODE_TAG,
    LIBRARIES_TAG,
    RESULTS_VERSION_TAG,
    CellFolder,
    RunDescription,
)
from experiments.cells.cell_names import as_named, same_parts
from experiments.console import format_count
from experiments.tracking.tracked_cells import DELETED, TrackedCell

State = Literal["finished", "failed", "interrupted", "missing", "deleted"]


@dataclass(frozen=True)
class CellState:
    """The state of a cell before a launch.

    Attributes:
        num_epochs: epochs that are done.
        reason: for `failed`: why; for `missing`: what changed since a run of the same name; for `deleted`:
            which run is meant, and how to run the cell again.
        is_open: whether an attempt started and did not end: it is running, or was cut off.
        tags: of its run; empty if there is none.
        metrics: of its last epoch.
        is_healthy: whether it finished and passed all health checks; None without any.
    """

    cell: Cell
    state: State
    num_epochs: int = 0
    reason: str = ""
    is_open: bool = False
    tags: Mapping[str, str] = field(default_factory=dict)
    is_healthy: bool | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)

    def is_to_run(self, retry_failed: bool) -> bool:
        """Whether a launch runs the cell."""
        return self.state in ("missing", "interrupted") or (self.state == "failed" and retry_failed)


def cell_states(cells: Sequence[Cell], tracked: Mapping[str, TrackedCell], out: Path) -> list[CellState]:
    """Looks up every cell, in its folder and in MLflow.

    The folder may know more (if records are not delivered yet) or nothing (if it was deleted). Cells that
    began keep their names: earlier versions, and smaller grids, ordered the parts of names differently.
    """
    return [
        _state(_as_named_before(cell, folder, tracked), tracked, folder)
        for cell, folder in ((cell, CellFolder.of(out, cell)) for cell in cells)
    ]


def note_on_sources(states: Sequence[CellState]) -> str | None:
    """One line if the finished runs come from several versions of the source or sets of libraries."""
    finished = [state for state in states if state.state == "finished"]
    num_sources, num_sets = (
        len({state.tags.get(tag) for state in finished}) for tag in (CODE_TAG, LIBRARIES_TAG)
    )
    if num_sources < 2 and num_sets < 2:
        return None
    return (
        f"note: these runs come from {format_count(num_sources, 'version')} of the source and "
        f"{format_count(num_sets, 'set')} of libraries; results version "
        f"{finished[0].cell.results_version} holds for all"
    )


def _as_named_before(cell: Cell, folder: CellFolder, tracked: Mapping[str, TrackedCell]) -> Cell:
    run = tracked.get(cell.hash)
    return as_named(cell, run.name) if run else folder.with_earlier_name(cell)


def _state(cell: Cell, tracked: Mapping[str, TrackedCell], folder: CellFolder) -> CellState:
    run = tracked.get(cell.hash)
    epochs = folder.journal.epochs
    metrics = epochs[max(epochs)].metrics if epochs else run.metrics if run else {}
    return replace(_known_state(cell, run, folder, tracked), metrics=metrics)


def _known_state(
    cell: Cell, run: TrackedCell | None, folder: CellFolder, tracked: Mapping[str, TrackedCell]
) -> CellState:
    end, num_epochs = folder.journal.end, len(folder.journal.epochs)
    if run and run.status == DELETED:
        if run.run_id == folder.delivered_to:
            remedy = f"to have it back, restore that run there; to run it again, remove {folder.path}"
            return CellState(
                cell, "deleted", num_epochs, f"its run {run.run_id} was deleted in MLflow; {remedy}"
            )
        # Of a folder that is gone: there is nothing left that could come back.
        run = None
    outcome = end.outcome if end else (run.status if run and not folder.journal.events else None)
    if outcome == "FINISHED":
        tags = run.tags if run else folder.description.tags
        is_healthy = _is_healthy(folder, run)
        return CellState(cell, "finished", len(cell.phases), tags=tags, is_healthy=is_healthy)
    if outcome == "FAILED":
        reason = end.reason if end else run.failure if run else None
        return CellState(cell, "failed", num_epochs, reason or "unknown reason")
    is_open = folder.journal.is_open
    if num_epochs or run or is_open:
        return CellState(cell, "interrupted", num_epochs, is_open=is_open)
    return CellState(cell, "missing", 0, _why_not_reused(cell, tracked))


def _is_healthy(folder: CellFolder, run: TrackedCell | None) -> bool | None:
    """By the last epoch in the folder, which MLflow may lack; by MLflow if the folder was deleted."""
    epochs = folder.journal.epochs
    if not epochs:
        return run.is_healthy if run else None
    num_findings = epochs[max(epochs)].metrics.get("num_health_findings")
    return None if num_findings is None else num_findings == 0


def _why_not_reused(cell: Cell, tracked: Mapping[str, TrackedCell]) -> str:
    """What changed since the most similar run of the same name; empty if there is no such run."""
    changes = [_changes(cell, run) for run in tracked.values() if same_parts(run.name, cell.name)]
    fewest = min(changes, key=len, default=[])
    return f"changed: {', '.join(fewest)}" if fewest else ""


def _changes(cell: Cell, run: TrackedCell) -> list[str]:
    """The parts of a cell's identity that differ in a run, with old and new values of fields."""
    description = RunDescription.of(cell)
    # Runs from before results had a version are of version 1.
    tags = {RESULTS_VERSION_TAG: "1"} | run.tags
    parts = {
        "lookup table": "tfnas.table_fingerprint",
        "images": "tfnas.data_fingerprint",
        "results version": RESULTS_VERSION_TAG,
    }
    changed = [name for name, tag in parts.items() if description.tags.get(tag) != tags.get(tag)]
    for name in sorted({*cell.identity["config"], "architecture"} & description.params.keys()):
        # A run from before the field existed did what its default does.
        default = str(cell.config_type.model_fields[name].get_default())
        before, now = run.params.get(name, default), description.params[name]
        if before != now:
            changed.append(f"{name} {before} -> {now}")
    return changed
