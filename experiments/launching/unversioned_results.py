"""Taking over results from before results had a version.

Such runs were identified by a hash of the source. The identity that a cell had then can be computed
from that hash, so they are found exactly. They are of results version 1: once a kind of cell has another
one, its part of this module can go.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from experiments.cells.cell import Cell
from experiments.cells.cell_folder import CODE_TAG, RESULTS_VERSION_TAG, CellFolder, find_cell_folders
from experiments.console import format_count
from experiments.tracking.tracker import TrackedCell, Tracker
from nas.foundation.identity import fingerprint


def adopt_unversioned(
    cells: Iterable[Cell],
    out: Path,
    tracker: Tracker,
    tracked: Mapping[str, TrackedCell],
    report: Callable[[str], None],
) -> None:
    """Gives the runs of these cells their present identity, in their folders and in tracking.

    Args:
        out: output folder.
        tracked: what tracking knows, by the cells' former hashes.
        report: receives a line if there are any such runs.

    Raises:
        UserError: the tracking store is unreachable.
    """
    own = [cell for cell in cells if cell.results_version == 1]
    adopted = set()
    for former, run in tracked.items():
        cell = _match(own, former, run.tags)
        if cell is not None:
            tracker.annotate(former, {}, _new_tags(cell))
            adopted.add(cell.hash)
    for folder in find_cell_folders(out):
        description = folder.description
        cell = _match(own, description.cell, description.tags)
        new = CellFolder.of(out, cell) if cell is not None else None
        if cell is None or new is None or new.path.exists() or _is_elsewhere(folder):
            continue
        folder.path.rename(new.path)
        tags = description.tags | _new_tags(cell)
        CellFolder(new.path).describe(replace(description, cell=cell.hash, name=cell.name, tags=tags))
        adopted.add(cell.hash)
    if adopted:
        runs = format_count(len(adopted), "run")
        report(f"Taken over as results version 1: {runs} from before results had a version")


def count_unversioned(cells: Iterable[Cell], tracked: Mapping[str, TrackedCell]) -> int:
    """How many runs in tracking `adopt_unversioned` would take over."""
    own = [cell for cell in cells if cell.results_version == 1]
    return sum(_match(own, former, run.tags) is not None for former, run in tracked.items())


def _match(cells: Iterable[Cell], former: str, tags: Mapping[str, str]) -> Cell | None:
    """The cell whose former hash it is, of a run without a results version."""
    code = tags.get(CODE_TAG)
    if RESULTS_VERSION_TAG in tags or code is None:
        return None
    return next((cell for cell in cells if _former_hash(cell, code) == former), None)


def _former_hash(cell: Cell, code: str) -> str:
    identity = dict(cell.identity)
    del identity["results_version"]
    # There was one method, and no name for it.
    identity["config"] = {name: value for name, value in identity["config"].items() if name != "method"}
    if "latency_table" in identity:
        identity["latency table"] = identity.pop("latency_table")
    return fingerprint(identity | {"code": code})[:32]


def _new_tags(cell: Cell) -> dict[str, str]:
    factors = {f"factor.{name}": str(value) for name, value in cell.factors.items()}
    return {"tfnas.cell": cell.hash, RESULTS_VERSION_TAG: "1", **factors}


def _is_elsewhere(folder: CellFolder) -> bool:
    """Whether checkpoints that are still needed lie in a storage, under the folder's former name."""
    return folder.description.storage is not None and not folder.journal.is_finished
