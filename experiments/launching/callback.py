"""LaunchCallback: from events of Ray to journals, to the screen and to MLflow."""

from collections.abc import Sequence
from textwrap import shorten
from typing import Any

from ray import tune

from experiments.cells.cell import Cell
from experiments.cells.cell_folder import CellFolder
from experiments.cells.journal import Outcome
from experiments.launching.progress import Progress
from experiments.tracking.delivery import Delivery
from nas.search.health import checks_from_json


class LaunchCallback(tune.Callback):
    """Records what the trials of a launch do: first in the journal, then everywhere else.

    Attributes:
        shared_epochs_s: duration of each warm-up epoch that a cell reused from another one.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        folders: dict[str, CellFolder],
        launch_id: str,
        progress: Progress,
        delivery: Delivery,
    ) -> None:
        self._cells = {cell.hash: cell for cell in cells}
        self._folders = folders
        self._launch_id = launch_id
        self._progress = progress
        self._delivery = delivery
        self._failures: dict[str, str] = {}
        self.shared_epochs_s: list[float] = []

    def __getstate__(self) -> dict[str, Any]:
        # Ray writes callbacks to disk to restore a run; ours resumes from the journals instead.
        return {}

    def add(self, cell: Cell, folder: CellFolder) -> None:
        """Adds a cell that was unknown when the launch started."""
        self._cells[cell.hash] = cell
        self._folders[cell.hash] = folder
        self._progress.add(cell)

    def close(self) -> set[Outcome]:
        """Marks as interrupted what has started and not ended.

        Returns:
            The outcomes of all cells; KILLED includes those that never started.
        """
        for key, folder in self._folders.items():
            if folder.journal.is_open:
                self._finish(key, "KILLED", None)
        ends = [folder.journal.end for folder in self._folders.values()]
        return {(end.outcome if end else None) or "KILLED" for end in ends}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Records that a trial starts, for the first time or after its process died."""
        key = cell_key(trial)
        folder = self._folders[key]
        if not folder.journal.is_open:
            folder.journal.start(self._launch_id)
        self._progress.start(self._cells[key])
        self._delivery.notify(folder)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Records an epoch; shows a warning or the health of a search; keeps the reason of a failure."""
        key = cell_key(trial)
        if "failure" in result:
            self._failures[key] = result["failure"]
            return
        if "warning" in result:
            self._progress.note(f"{self._cells[key].name}: warning: {result['warning']}")
            return
        if "health" in result:
            name = self._cells[key].name
            self._progress.show_health(self._cells[key], checks_from_json(result["health"], name))
            return
        journal = self._folders[key].journal
        if result["is_shared"] and result["epoch"] not in journal.epochs:
            self.shared_epochs_s.append(result["metrics"]["epoch_seconds"])
        journal.add_epoch(result["epoch"], result["metrics"])
        self._progress.add_epoch(self._cells[key], result["epoch"], result["metrics"])
        self._delivery.notify(self._folders[key])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Records that the function of a trial returned."""
        key = cell_key(trial)
        reason = self._failures.pop(key, None)
        self._finish(key, "FAILED" if reason else "FINISHED", reason)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Records that the process of a trial died too often."""
        lines = str(trial.get_error()).strip().splitlines()
        # Ray adds a lot of advice.
        reason = shorten(lines[-1] if lines else "unknown", 300, placeholder=" ...")
        self._finish(cell_key(trial), "FAILED", f"its process died: {reason}")

    def _finish(self, key: str, outcome: Outcome, reason: str | None) -> None:
        self._folders[key].journal.finish(outcome, reason)
        self._progress.end(self._cells[key], outcome, reason)
        self._delivery.notify(self._folders[key])


def cell_key(trial: Any) -> str:
    """The hash of the cell of a trial."""
    key: str = trial.config["cell"]["hash"]
    return key
