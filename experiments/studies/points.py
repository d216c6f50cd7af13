"""The points of a study: what Optuna's storage says of them, and what the journals of their searches say.

Optuna's storage holds which points there are and what was told of them; the journals hold what
became of their searches. Nothing else is kept, so that a launch that is killed at any moment is
gone on from: a point that was asked for and not told is an open one, whatever became of it.
"""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from experiments.cells.cell_folder import CellFolder
from experiments.cells.journal import Journal
from experiments.cells.search_cell import SearchCell
from experiments.launching.grid_launch import Work
from experiments.specs.preparation import Preparation
from experiments.specs.study_grid import StudyGrid
from experiments.studies.samplers import make_sampler
from nas.foundation.errors import UserError

_FINAL = ("FINISHED", "FAILED", "PRUNED")
FAILURE = "failure"
"""Trial's attribute in Optuna: why a point has no value."""


@dataclass(frozen=True)
class Point:
    """A trial of Optuna's with the searches whose mean is its value."""

    trial: optuna.Trial
    cells: list[SearchCell]


class Points:
    """The points of a study that were asked for and not told, and their searches.

    Attributes:
        study: Optuna's.
        cells: every search of an open point, by its hash.
        folders: of these, by hash.
        pruned: hashes of searches that were told to end in the middle.
    """

    def __init__(self, plan: StudyGrid, study: optuna.Study, work: Work, preparation: Preparation) -> None:
        self.plan = plan
        self.work = work
        self.study = study
        self.cells: dict[str, SearchCell] = {}
        self.folders: dict[str, CellFolder] = {}
        self.pruned: set[str] = set()
        self._preparation = preparation
        self._open: dict[int, Point] = {}
        self._handed_out: set[str] = set()
        for frozen in study.get_trials(deepcopy=False):
            if frozen.state == TrialState.RUNNING:
                # Optuna has no other way back to a trial that an earlier process asked for. What a kill
                # left unsuggested is suggested now; what is there stays.
                study.sampler = make_sampler(plan.study, frozen.number)
                trial = optuna.Trial(study, frozen._trial_id)
                self.open(trial, plan.study.suggest(trial))

    def open(self, trial: optuna.Trial, values: dict[str, Any]) -> None:
        """A point was asked for; one that is impossible has failed at once."""
        try:
            cells = self.plan.point_cells(trial.number, values, self._preparation)
        except UserError as error:
            self._fail(trial, str(error))
            return
        # Points that agree share their searches, under the name of the first.
        cells = [self.cells.setdefault(cell.hash, self._as_before(cell)) for cell in cells]
        for cell in cells:
            self.folders.setdefault(cell.hash, CellFolder.of(self.work.out, cell))
        self._open[trial.number] = Point(trial, cells)

    def next_cell(self) -> SearchCell | None:
        """A search of an open point that has not ended and is not running; None if there is none."""
        for point in self._open.values():
            for cell in point.cells:
                if cell.hash not in self._handed_out and not _is_final(self.folders[cell.hash].journal):
                    self._handed_out.add(cell.hash)
                    return cell
        return None

    def is_spent(self) -> bool:
        """Whether the budget allows no further point."""
        budget = self.plan.study.budget
        if budget.num_trials is not None and self.num_begun >= budget.num_trials:
            return True
        return budget.hours is not None and self.searched_hours() >= budget.hours

    @property
    def num_begun(self) -> int:
        """How many points were asked for, over all launches."""
        return sum(trial.state != TrialState.WAITING for trial in self.study.get_trials(deepcopy=False))

    @property
    def num_open(self) -> int:
        """How many points were asked for and not told."""
        return len(self._open)

    def searched_hours(self) -> float:
        """Hours of searching so far, summed over searches and launches."""
        journals = (
            CellFolder(path.parent).journal for path in self.work.out.glob("cells/trial-*/journal.jsonl")
        )
        return sum(_searched_ms(journal) for journal in journals) / 3_600_000

    def report(self, key: str, epoch: int, metrics: dict[str, float]) -> bool:
        """Tells Optuna a search's epoch, once.

        Args:
            key: the cell's hash.

        Returns:
            Whether the search is to end here.
        """
        value = self.plan.study.objectives[0].value(metrics)
        is_last = epoch >= self.cells[key].config.num_epochs
        for point in self._open.values():
            if value is None or all(cell.hash != key for cell in point.cells):
                continue
            if epoch not in self.study.get_trials(deepcopy=False)[point.trial.number].intermediate_values:
                point.trial.report(value, step=epoch)
            if not is_last and point.trial.should_prune():
                self.pruned.add(key)
        return key in self.pruned

    def tell_ended(self) -> None:
        """Tells Optuna of every open point whose searches have all ended, once."""
        for number, point in list(self._open.items()):
            ends = [self.folders[cell.hash].journal.end for cell in point.cells]
            if not all(end and end.outcome in _FINAL for end in ends):
                continue
            reasons = [end.reason or "" for end in ends if end and end.outcome == "FAILED"]
            if reasons:
                self._fail(point.trial, reasons[0])
            elif any(end and end.outcome == "PRUNED" for end in ends):
                self.study.tell(number, state=TrialState.PRUNED)
            else:
                self._tell_values(point)
            del self._open[number]

    def _tell_values(self, point: Point) -> None:
        values = []
        for objective in self.plan.study.objectives:
            found = [objective.value(_last_metrics(self.folders[cell.hash].journal)) for cell in point.cells]
            known = [value for value in found if value is not None]
            if len(known) < len(found):
                self._fail(point.trial, f"its searches have no {objective.metric}")
                return
            values.append(statistics.fmean(known))
        self.study.tell(point.trial.number, values, state=TrialState.COMPLETE)

    def _fail(self, trial: optuna.Trial, reason: str) -> None:
        trial.set_user_attr(FAILURE, reason)
        self.study.tell(trial.number, state=TrialState.FAIL)

    def _as_before(self, cell: SearchCell) -> SearchCell:
        """The search under the name that an earlier point, with the same search, gave it."""
        found = sorted(self.work.out.glob(f"cells/trial-*-{cell.hash[:10]}/run.json"))
        return replace(cell, name=CellFolder(found[0].parent).description.name) if found else cell


def finished_trials(study: optuna.Study) -> Iterator[FrozenTrial]:
    """The trials of which Optuna was told, in their order."""
    return (trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished())


def _is_final(journal: Journal) -> bool:
    return journal.end is not None and journal.end.outcome in _FINAL


def _last_metrics(journal: Journal) -> dict[str, float]:
    epochs = journal.epochs
    return epochs[max(epochs)].metrics


def _searched_ms(journal: Journal) -> int:
    """Time of a search's attempts, but for what followed the last epoch of one that was cut off."""
    total_ms = last_ms = 0
    for event in journal.events:
        if event.kind == "epoch" or (event.kind == "end" and event.outcome != "KILLED"):
            total_ms += event.time_ms - last_ms
        last_ms = event.time_ms
    return total_ms
