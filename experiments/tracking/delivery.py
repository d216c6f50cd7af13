"""Tells tracking what the journals say, beside the trials, so that a slow server stops nobody."""

import threading
import time
from collections.abc import Callable

from mlflow.exceptions import MlflowException

from experiments.cells.cell_folder import CellFolder
from experiments.tracking.tracker import Tracker

_RETRY_S = 2.0

_PAUSE_S = 2.0
"""Between rounds, so that short epochs come in batches: most of what MLflow takes for one is per request."""


class Delivery:
    """A thread that delivers journals, and tries again while the store is away.

    Args:
        report: is told when the store goes away and when it is back.
    """

    def __init__(self, tracker: Tracker, report: Callable[[str], None]) -> None:
        self._tracker = tracker
        self._report = report
        self._pending: dict[str, CellFolder] = {}
        self._changed = threading.Condition()
        self._is_closing = False
        self._is_away = False
        self._bug: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="delivery", daemon=True)
        self._thread.start()

    def notify(self, folder: CellFolder) -> None:
        """A cell's journal has grown."""
        with self._changed:
            self._pending[folder.path.name] = folder
            self._changed.notify()

    def close(self, patience_s: float) -> list[str]:
        """Delivers what is left, for at most so many seconds.

        Returns:
            Names of the folders that are still to be delivered, by the next launch.
        """
        deadline = time.monotonic() + patience_s
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join(max(deadline - time.monotonic(), 0))
        if self._bug:
            raise self._bug
        with self._changed:
            return sorted(self._pending)

    def _run(self) -> None:
        try:
            while folders := self._next():
                for folder in folders:
                    self._deliver(folder)
                self._pause()
        except Exception as bug:
            # A thread's exception would vanish: it is raised again by `close`.
            self._bug = bug

    def _next(self) -> list[CellFolder]:
        """What is pending, as soon as something is; nothing when there is nothing more to come."""
        with self._changed:
            self._changed.wait_for(lambda: self._pending or self._is_closing)
            return list(self._pending.values())

    def _pause(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._is_closing, _PAUSE_S)

    def _deliver(self, folder: CellFolder) -> None:
        num_events = len(folder.journal.events)
        try:
            self._tracker.deliver(folder)
        except (MlflowException, OSError) as error:
            if not self._is_away:
                reason = (str(error) or type(error).__name__).splitlines()[0]
                self._report(f"MLflow is away ({reason}); records wait on disk")
            self._is_away = True
            time.sleep(_RETRY_S)
            return
        if self._is_away:
            self._report("MLflow is back")
        self._is_away = False
        with self._changed:
            if len(folder.journal.events) == num_events:
                del self._pending[folder.path.name]
