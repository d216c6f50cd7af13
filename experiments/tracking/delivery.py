"""Delivery of journals to MLflow in a thread, so that a slow server never delays a trial."""

import threading
import time
from collections.abc import Callable

from mlflow.exceptions import MlflowException

from experiments.cells.cell_folder import CellFolder
from experiments.tracking.tracker import Tracker
from nas.foundation.errors import UserError, first_line

_RETRY_S = 2.0

_PAUSE_S = 5.0
"""Pause between rounds; it batches short epochs, since most of the time goes into single requests."""


class Delivery:
    """A thread that delivers journals, and retries while the tracking server is unreachable.

    Args:
        report: receives a line when the server becomes unreachable, and when it is back.
    """

    def __init__(self, tracker: Tracker, report: Callable[[str], None]) -> None:
        self._tracker = tracker
        self._report = report
        self._pending: dict[str, CellFolder] = {}
        self._damaged: set[str] = set()
        self._changed = threading.Condition()
        self._is_closing = False
        self._is_unreachable = False
        self._bug: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="delivery", daemon=True)
        self._thread.start()

    def notify(self, folder: CellFolder) -> None:
        """Announces that the journal of a cell has grown."""
        with self._changed:
            self._pending[folder.path.name] = folder
            self._changed.notify()

    def close(self, patience_s: float) -> list[str]:
        """Delivers the rest, for at most `patience_s` seconds.

        Returns:
            Names of the folders that the next launch has to deliver, if it can read them.
        """
        deadline = time.monotonic() + patience_s
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join(max(deadline - time.monotonic(), 0))
        if self._bug:
            raise self._bug
        with self._changed:
            return sorted(self._damaged.union(self._pending))

    def _run(self) -> None:
        try:
            while folders := self._next():
                for folder in folders:
                    self._deliver(folder)
                self._pause()
        except Exception as bug:
            # Exceptions in a thread would vanish: `close` raises it again.
            self._bug = bug

    def _next(self) -> list[CellFolder]:
        """Waits for pending folders and returns them; empty once the delivery is closing and done."""
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
        except UserError as error:
            # A damaged file of one cell must not hold up the others.
            self._report(f"{error}; MLflow gets nothing more of it")
            with self._changed:
                del self._pending[folder.path.name]
                self._damaged.add(folder.path.name)
            return
        except (MlflowException, OSError) as error:
            if not self._is_unreachable:
                reason = first_line(error)
                self._report(f"MLflow is unreachable ({reason}); results are kept and delivered later")
            self._is_unreachable = True
            time.sleep(_RETRY_S)
            return
        if self._is_unreachable:
            self._report("MLflow is reachable again")
        self._is_unreachable = False
        with self._changed:
            if len(folder.journal.events) == num_events:
                del self._pending[folder.path.name]
