"""The points of a study, as recorded by Optuna's storage and by the journals of their searches.

Optuna's storage holds the points and their values; the journals hold what happened to their searches.
Nothing else is stored, so a study resumes from a kill at any moment: a point without a value or a failure is
open.
"""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

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
"""Attribute of an Optuna trial: why the point has no value."""


@dataclass(frozen=True)
class StudyPoint:
    """A trial of Optuna with the searches whose mean is its value."""

    trial: optuna.Trial
    cells: list[SearchCell]


class Points:
    """The open points of a study and their searches.

    Attributes:
        study: the study in Optuna.
        cells: the searches of open points, by hash.
        folders: their folders, by hash.
        pruned: hashes of searches that end early.
    """

    def __init__(self, plan: StudyGrid, study: optuna.Study, work: Work, preparation: Preparation) -> None:
        self.plan = plan
        self.work = work
        self.study = study
        self.cells: dict[str, SearchCell] = {}
        self.folders: dict[str, CellFolder] = {}
        self.pruned: set[str] = set()
        self._preparation = preparation
        self._open: dict[int, StudyPoint] = {}
        self._handed_out: set[str] = set()
        for frozen in study.get_trials(deepcopy=False):
            if frozen.state == TrialState.RUNNING:
                self._use_sampler_of(frozen.number)
                # Optuna has no other way back to a trial of an earlier process.
                self._open_point(optuna.Trial(study, frozen._trial_id))

    def ask(self) -> None:
        """Asks Optuna for a point."""
        self._use_sampler_of(self.num_begun)
        self._open_point(self.study.ask())

    def _use_sampler_of(self, number: int) -> None:
        # Before the trial is made: that is when some samplers draw.
        self.study.sampler = make_sampler(self.plan.study, number)

    def _open_point(self, trial: optuna.Trial) -> None:
        """Opens a point; an impossible one fails at once. Values that a kill left undrawn are drawn now."""
        values = self.plan.study.suggest(trial)
        try:
            cells = self.plan.point_cells(trial.number, values, self._preparation)
        except UserError as error:
            self._fail(trial, str(error))
            return
        # Equal points share their searches, under the name of the first.
        cells = [self.cells.setdefault(cell.hash, self._as_before(cell)) for cell in cells]
        for cell in cells:
            self.folders.setdefault(cell.hash, CellFolder.of(self.work.out, cell, self.work.storage))
        self._open[trial.number] = StudyPoint(trial, cells)

    def next_cell(self) -> SearchCell | None:
        """A search of an open point that still has to run and is not running; None if there is none."""
        for point in self._open.values():
            for cell in point.cells:
                end = self.folders[cell.hash].journal.end
                is_done = end is not None and end.outcome in _FINAL
                if cell.hash not in self._handed_out and not is_done:
                    self._handed_out.add(cell.hash)
                    return cell
        return None

    def is_spent(self) -> bool:
        """Whether the budget allows no more points."""
        budget = self.plan.study.budget
        if budget.num_trials is not None and self.num_begun >= budget.num_trials:
            return True
        return budget.hours is not None and self.searched_hours() >= budget.hours

    @property
    def num_begun(self) -> int:
        """Number of points that Optuna was asked for, over all launches."""
        return sum(trial.state != TrialState.WAITING for trial in self.study.get_trials(deepcopy=False))

    @property
    def num_open(self) -> int:
        """Number of open points."""
        return len(self._open)

    def searched_hours(self) -> float:
        """Hours of searching so far, summed over searches and launches."""
        return searched_hours(self.work.out)

    def report(self, key: str, epoch: int, metrics: dict[str, float]) -> bool:
        """Reports an epoch of a search to Optuna, once.

        Args:
            key: hash of the cell.

        Returns:
            Whether the search ends here.
        """
        value = self.plan.study.objectives[0].value(metrics)
        is_last = epoch >= len(self.cells[key].phases)
        for point in self._open.values():
            if value is None or all(cell.hash != key for cell in point.cells):
                continue
            if epoch not in self.study.get_trials(deepcopy=False)[point.trial.number].intermediate_values:
                point.trial.report(value, step=epoch)
            if not is_last and point.trial.should_prune():
                self.pruned.add(key)
        return key in self.pruned

    def tell_ended(self) -> None:
        """Closes, in Optuna, every open point whose searches have all ended."""
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

    def _tell_values(self, point: StudyPoint) -> None:
        values = []
        for objective in self.plan.study.objectives:
            found = [objective.value(_last_metrics(self.folders[cell.hash].journal)) for cell in point.cells]
            known = [value for value in found if value is not None]
            if len(known) < len(found):
                self._fail(point.trial, f"its searches lack the metric {objective.metric}")
                return
            values.append(statistics.fmean(known))
        self.study.tell(point.trial.number, values, state=TrialState.COMPLETE)

    def _fail(self, trial: optuna.Trial, reason: str) -> None:
        trial.set_user_attr(FAILURE, reason)
        self.study.tell(trial.number, state=TrialState.FAIL)

    def _as_before(self, cell: SearchCell) -> SearchCell:
        """The search, under the name that an earlier point with the same search gave it."""
        found = sorted(self.work.out.glob(f"cells/trial-*-{cell.hash[:10]}/run.json"))
        return replace(cell, name=CellFolder(found[0].parent).description.name) if found else cell


def finished_trials(study: optuna.Study) -> Iterator[FrozenTrial]:
    """The closed points, in order."""
    return (trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished())


def _last_metrics(journal: Journal) -> dict[str, float]:
    epochs = journal.epochs
    return epochs[max(epochs)].metrics


def searched_hours(out: Path) -> float:
    """Hours of searching that an output folder holds, summed over searches and launches."""
    journals = (CellFolder(path.parent).journal for path in out.glob("cells/trial-*/journal.jsonl"))
    return sum(_searched_ms(journal) for journal in journals) / 3_600_000


def _searched_ms(journal: Journal) -> int:
    """Duration of all attempts of a search, each cut-off one up to its last epoch."""
    total_ms = last_ms = 0
    for event in journal.events:
        if event.kind == "epoch" or (event.kind == "end" and event.outcome != "KILLED"):
            total_ms += event.time_ms - last_ms
        last_ms = event.time_ms
    return total_ms
