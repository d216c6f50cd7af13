"""A study within Ray Tune: which search runs next, and which ends early.

Ray's `OptunaSearch` cannot go on with a study by itself. It never comes back to trials that an
earlier process asked for, counts its samples anew, knows one search a point only, takes a search
that failed for a pruned one, and only logs what Optuna refuses to be told. So it asks Optuna for
points here, through its define-by-run function (the only one of its two ways that knows
conditions), and `Points` does the rest.
"""

from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from experiments.launching.callback import LaunchCallback, cell_key
from experiments.studies.points import Points
from experiments.studies.samplers import make_sampler


class StudySearch(OptunaSearch):
    """Hands out the searches of open points, then asks Optuna for further ones, within the budget."""

    def __init__(self, points: Points, callback: LaunchCallback) -> None:
        study = points.plan.study
        super().__init__(
            space=study.suggest,
            metric=[objective.metric for objective in study.objectives],
            mode=[objective.direction[:3] for objective in study.objectives],
        )
        # In place of one that would start in memory, or look at the storage a second time.
        self._ot_study = points.study  # type: ignore[assignment]
        self._points = points
        self._callback = callback

    def __getstate__(self) -> dict[str, Any]:
        # Ray writes searchers to disk to restore a run from; ours starts from Optuna's storage instead.
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing to write: see `__getstate__`."""

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The next search, as parameters of its Ray trial; FINISHED when none is left."""
        while (cell := self._points.next_cell()) is None:
            # What was told at once (an impossible point, or one that agrees with an ended one) counts, too.
            self._points.tell_ended()
            if self._points.is_spent():
                return Searcher.FINISHED  # type: ignore[return-value]
            self._ask()
        self._points.work.prepare(cell)
        self._callback.add(cell, self._points.folders[cell.hash])
        return {"cell": self._points.work.trial_params(cell)}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """The scheduler has told Optuna."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """The callback tells Optuna, once the search's end is in its journal."""

    def _ask(self) -> None:
        study = self._points.study
        study.sampler = make_sampler(self._points.plan.study, self._points.num_begun)
        values = super().suggest("next")
        assert values is not None
        self._points.open(self._ot_trials.pop("next"), values)


class StudyScheduler(FIFOScheduler):
    """Reports epochs to Optuna, and ends the searches that its pruner gives up.

    Optuna's pruners rather than Tune's, which forget all they knew of when a launch is killed.
    """

    def __init__(self, points: Points) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._points = points

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """An epoch is done; Tune has flattened the result."""
        metrics = {
            name.removeprefix("metrics/"): value
            for name, value in result.items()
            if name.startswith("metrics/")
        }
        is_pruned = bool(metrics) and self._points.report(cell_key(trial), result["epoch"], metrics)
        decision: str = TrialScheduler.STOP if is_pruned else TrialScheduler.CONTINUE
        return decision


class StudyCallback(LaunchCallback):
    """Writes down what the trials do, and then lets Optuna know."""

    def __init__(self, points: Points, *arguments: Any) -> None:
        super().__init__([], {}, *arguments)
        self._points = points

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's function returned, or was ended in the middle."""
        key = cell_key(trial)
        if key in self._points.pruned:
            last_epoch = max(self._points.folders[key].journal.epochs)
            self._finish(key, "PRUNED", f"pruned after epoch {last_epoch}")
        else:
            super().on_trial_complete(iteration, trials, trial, **info)
        self._points.tell_ended()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's process died once too often."""
        super().on_trial_error(iteration, trials, trial, **info)
        self._points.tell_ended()
