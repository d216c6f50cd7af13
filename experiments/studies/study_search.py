"""A study within Ray Tune: which search runs next, and which one ends early.

Tune asks `StudySearch` for searches. `Points` has those of open points and asks Optuna for more points.
"""

from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from experiments.launching.callback import LaunchCallback, cell_key
from experiments.studies.points import Points


class StudySearch(Searcher):
    """Hands out the searches of open points, then asks for more points, within the budget."""

    def __init__(self, points: Points, callback: LaunchCallback) -> None:
        super().__init__()
        self._points = points
        self._callback = callback

    def __getstate__(self) -> dict[str, Any]:
        # Ray writes searchers to disk to restore a run; ours resumes from Optuna's storage instead.
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Writes nothing, see `__getstate__`."""

    def restore(self, checkpoint_path: str) -> None:
        """Reads nothing, see `__getstate__`."""

    def set_search_properties(self, metric: str | None, mode: str | None, config: Any, **spec: Any) -> bool:
        """Accepts what Tune knows: the space and the objectives are those of the study."""
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The next search, as parameters of its Ray trial; FINISHED when none is left."""
        while (cell := self._points.next_cell()) is None:
            # Counts points that ended at once: impossible ones, and repetitions of points that have ended.
            self._points.tell_ended()
            if self._points.is_spent():
                return Searcher.FINISHED  # type: ignore[return-value]
            self._points.ask()
        self._points.work.prepare(cell)
        self._callback.add(cell, self._points.folders[cell.hash])
        return {"cell": self._points.work.trial_params(cell)}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Does nothing: the callback tells Optuna once the end of the search is in its journal."""


class StudyScheduler(FIFOScheduler):
    """Reports epochs to Optuna, and ends the searches that its pruner rejects.

    Tune's own pruners would forget everything when a launch is killed.
    """

    def __init__(self, points: Points) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._points = points

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Reports an epoch, whose result Tune has flattened; returns whether the search goes on."""
        metrics = {
            name.removeprefix("metrics/"): value
            for name, value in result.items()
            if name.startswith("metrics/")
        }
        is_pruned = bool(metrics) and self._points.report(cell_key(trial), result["epoch"], metrics)
        decision: str = TrialScheduler.STOP if is_pruned else TrialScheduler.CONTINUE
        return decision


class StudyCallback(LaunchCallback):
    """Records what the trials do, then tells Optuna."""

    def __init__(self, points: Points, *arguments: Any) -> None:
        super().__init__([], {}, *arguments)
        self._points = points

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Records that the function of a trial returned or was ended early."""
        key = cell_key(trial)
        if key in self._points.pruned:
            last_epoch = max(self._points.folders[key].journal.epochs)
            self._finish(key, "PRUNED", f"pruned after epoch {last_epoch}")
        else:
            super().on_trial_complete(iteration, trials, trial, **info)
        self._points.tell_ended()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Records that the process of a trial died too often."""
        super().on_trial_error(iteration, trials, trial, **info)
        self._points.tell_ended()
