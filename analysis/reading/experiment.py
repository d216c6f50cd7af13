"""An experiment as analysis reads it: the runs that can be compared, and its study if it has one."""

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from analysis.reading import tags
from analysis.reading.nothing_to_draw import NothingToDrawError
from analysis.reading.registration import Registration
from analysis.reading.run import ComparisonBasis, Run, sort_runs, varying_fields
from analysis.reading.run_store import RunStore
from analysis.reading.shown import Shown
from analysis.reading.study_record import StudyRecord
from analysis.reading.values import Value, order_fields
from nas.latency.table import LatencyTable


@dataclass(frozen=True)
class Experiment:
    """The search runs of an experiment that can be compared.

    Attributes:
        tracking_uri: address of its MLflow store, for links; empty if there is none.
        basis: what all its searches have in common.
        runs: finished searches, one per cell, ordered by setting and seed.
        missing: cells without a finished run (failed, unfinished, not started).
        training: finished runs that trained networks from scratch, all under the same terms.
        notices: what was left out and why, one line each.
        study: the newest study of the experiment; None if there is none, or none with results.
        registered: the grid that is compared; None if every run of the experiment is.
        registrations: all grids of searches that launches registered, the first one first.
        training_registrations: all grids of trainings that launches registered.
        left_out: runs of searches that are not in the registered grid, without their files.
        failed_training: runs that failed to train a network.
        views: kinds of runs that MLflow has a saved view of.
        store: where it was read from; None for one that was made up.
        shown: the order and the names of settings in figures, and the layers that these show.
    """

    name: str
    experiment_id: str
    tracking_uri: str
    basis: ComparisonBasis
    runs: tuple[Run, ...]
    missing: tuple[Run, ...]
    training: tuple[Run, ...]
    notices: tuple[str, ...]
    study: StudyRecord | None = None
    registered: Registration | None = None
    registrations: tuple[Registration, ...] = ()
    training_registrations: tuple[Registration, ...] = ()
    left_out: tuple[Run, ...] = ()
    failed_training: tuple[Run, ...] = ()
    views: frozenset[str] = frozenset()
    store: RunStore | None = field(default=None, repr=False)
    shown: Shown = field(default_factory=Shown)

    def showing(self, shown: Shown) -> "Experiment":
        """The same experiment, of which figures show less, in another order or by other names.

        Raises:
            UserError: it has no such seed, layer or value.
        """
        shown.check(self)
        runs = shown.select(self.runs)
        hidden = {run.run_id for run in self.runs} - {run.run_id for run in runs}
        return replace(
            self,
            shown=shown,
            runs=shown.sort(runs, self.factors),
            missing=shown.select(self.missing),
            training=tuple(run for run in self.training if run.tags.get(tags.SEARCH_RUN) not in hidden),
        )

    @cached_property
    def factors(self) -> tuple[str, ...]:
        """Config fields that differ between the cells, except the seed, in the order of their names' use."""
        return order_fields(varying_fields([*self.runs, *self.missing]))

    @property
    def is_read(self) -> bool:
        """Whether the files of all finished searches could be read; the notices say which could not."""
        return all(run.is_read for run in self.runs)

    def other_factors(self, *factors: str) -> tuple[str, ...]:
        """The factors except these."""
        return tuple(factor for factor in self.factors if factor not in factors)

    @cached_property
    def cells(self) -> tuple[Run, ...]:
        """Finished and missing cells, ordered by setting and seed."""
        return self.shown.sort(sort_runs([*self.runs, *self.missing], self.factors), self.factors)

    @cached_property
    def grid_cells(self) -> tuple[Run, ...]:
        """The cells without the searches of a study, which compare no settings."""
        of_study = self.study.searches if self.study else frozenset()
        return tuple(run for run in self.cells if run.run_id not in of_study)

    @property
    def searched(self) -> tuple[Run, ...]:
        """The runs whose trajectory could be read."""
        return tuple(run for run in self.runs if run.trajectory is not None)

    def searched_with(self, array: str) -> tuple[Run, ...]:
        """The runs whose trajectory has an array that not every method has.

        Args:
            array: its name in `Trajectory`.

        Raises:
            NothingToDrawError: no run has it.
        """
        if not self.searched:
            raise NothingToDrawError("no run with a trajectory")
        runs = tuple(run for run in self.searched if getattr(run.trajectory, array) is not None)
        if not runs:
            methods = ", ".join(sorted({str(run.config.get("method")) for run in self.searched}))
            raise NothingToDrawError(f"no run with {array} in its trajectory (method {methods})")
        return runs

    @property
    def study_runs(self) -> tuple[Run, ...]:
        """The finished searches of the study."""
        return tuple(run for run in self.runs if self.study is not None and run.run_id in self.study.searches)

    @property
    def is_study(self) -> bool:
        """Whether every cell is a search of the study, so that there are no settings to compare."""
        study = self.study
        return study is not None and all(run.run_id in study.searches for run in self.cells)

    def by_setting(
        self, factors: Iterable[str] | None = None, runs: Sequence[Run] | None = None
    ) -> list[list[Run]]:
        """Groups runs that agree in all these factors.

        Args:
            factors: None for all factors of the experiment: the runs of a group differ in the seed only.
            runs: None for all finished runs.
        """
        factors = tuple(self.factors if factors is None else factors)
        groups: dict[tuple[Value, ...], list[Run]] = {}
        for run in self.runs if runs is None else runs:
            groups.setdefault(run.setting(factors), []).append(run)
        return list(groups.values())

    def label(self, run: Run, factors: Iterable[str] | None = None) -> str:
        """Writes a run's setting for people: `single, sink, T = 4 ms`.

        Beside the name of a method that has neither, sampling and depth space are left out.
        """
        factors = order_fields(self.factors if factors is None else factors)
        if "method" in factors and run.trajectory is not None and run.trajectory.alpha_ELO is None:
            factors = tuple(factor for factor in factors if factor not in ("sampling", "depth"))
        return ", ".join(self.shown.name(factor, run.config.get(factor)) for factor in factors)

    @cached_property
    def table(self) -> LatencyTable | None:
        """The lookup table that the runs share; None if no run has kept it."""
        if self.store is None:
            return None
        for run in self.runs:
            with tempfile.TemporaryDirectory() as folder:
                path = self.store.fetch(run, "latency_table.json", Path(folder))
                if path is not None:
                    return LatencyTable.load(path)
        return None
