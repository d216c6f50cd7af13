"""What analysis works on: an experiment's runs, each with its config, epochs and trajectory."""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from analysis.reading.store import fetch_artifact
from analysis.reading.study_record import StudyRecord
from analysis.reading.values import Value, show_value
from nas.latency.table import LatencyTable
from nas.search.records import Trajectory
from nas.space.architecture import Architecture
from nas.space.macro_space import Space, get_space

SEED = "seed"

OF_NETWORK = ("architecture", "resolution")
"""Fields of a training that say which network is trained."""

_NOT_A_SETTING = frozenset(
    {"latency_table", "data_dir", "train_list", "test_list", "num_data_workers", "download", "device"}
)
"""Fields that say where things are or run; the table itself is compared by its fingerprint."""


@dataclass(frozen=True)
class Provenance:
    """What runs must share to be compared: the lookup table and the code."""

    table_fingerprint: str
    code_version: str

    def __str__(self) -> str:
        return f"table {self.table_fingerprint[:8]}, code {self.code_version[:12]}"


@dataclass(frozen=True)
class Run:
    """One cell of a grid as MLflow knows it.

    Attributes:
        config: the flat config, typed again.
        metrics: the last value of each metric.
        failure: why the run failed, in one line; None where that is not known.
        start_time_ms: since 1970.
        epochs: one row an epoch, the metrics as columns, indexed by epoch; None if not read.
        trajectory: alphas, betas, widths of all epochs; None if not read.
        problem: why `epochs` or `trajectory` could not be read, in one line.
    """

    run_id: str
    name: str
    status: str
    kind: str
    config: Mapping[str, Value]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    failure: str | None
    start_time_ms: int
    artifact_uri: str
    epochs: pd.DataFrame | None = None
    trajectory: Trajectory | None = None
    problem: str | None = None

    @property
    def provenance(self) -> Provenance:
        """The run's lookup table and code."""
        return Provenance(
            self.tags.get("tfnas.table_fingerprint", "unknown"),
            self.tags.get("tfnas.code_version", "unknown"),
        )

    @property
    def short_id(self) -> str:
        """The first digits of the run id, for captions."""
        return self.run_id[:8]

    @property
    def seed(self) -> Value:
        """The search's seed."""
        return self.config.get(SEED)

    @property
    def outcome(self) -> str:
        """What became of the run, in a few words."""
        return f"{self.status.lower()}: {self.failure}" if self.failure else self.status.lower()

    @cached_property
    def space(self) -> Space:
        """The macro space of a run whose trajectory was read."""
        assert self.trajectory is not None
        return get_space(self.trajectory.space)

    def number(self, name: str) -> float:
        """A numeric field of the config; NaN where the run has none."""
        value = self.config.get(name)
        return float(value) if isinstance(value, int | float) else float("nan")

    def setting(self, factors: Iterable[str]) -> tuple[Value, ...]:
        """The values of these factors."""
        return tuple(self.config.get(factor) for factor in factors)


@dataclass(frozen=True)
class Experiment:
    """The search runs of an MLflow experiment that can be compared.

    Attributes:
        runs: finished, one a cell, of one provenance; ordered by setting and seed.
        missing: cells of the same provenance without a finished run (failed, unfinished).
        training: finished runs that trained networks from scratch, all under one budget.
        notices: what was left out and why, for people.
        study: the newest study of the experiment; None where there is none, or it has no results yet.
    """

    name: str
    experiment_id: str
    tracking_uri: str
    provenance: Provenance
    runs: tuple[Run, ...]
    missing: tuple[Run, ...]
    training: tuple[Run, ...]
    notices: tuple[str, ...]
    study: StudyRecord | None = None

    @cached_property
    def factors(self) -> tuple[str, ...]:
        """Config fields that differ between the cells, the seed excepted."""
        return varying_fields([*self.runs, *self.missing])

    def other_factors(self, *factors: str) -> tuple[str, ...]:
        """The factors but for these."""
        return tuple(factor for factor in self.factors if factor not in factors)

    @cached_property
    def cells(self) -> tuple[Run, ...]:
        """Finished and missing cells, ordered by setting and seed."""
        return tuple(sort_runs([*self.runs, *self.missing], self.factors))

    @property
    def searched(self) -> tuple[Run, ...]:
        """The runs whose trajectory could be read."""
        return tuple(run for run in self.runs if run.trajectory is not None)

    @property
    def study_runs(self) -> tuple[Run, ...]:
        """The finished searches of the study."""
        return tuple(run for run in self.runs if self.study is not None and run.run_id in self.study.searches)

    @property
    def is_study(self) -> bool:
        """Whether every cell is a search of the study, so that there is no grid to speak of."""
        study = self.study
        return study is not None and all(run.run_id in study.searches for run in self.cells)

    def by_setting(self, factors: Iterable[str] | None = None) -> list[list[Run]]:
        """The finished runs in groups that differ in the seed only, or in none of these factors."""
        factors = tuple(self.factors if factors is None else factors)
        groups: dict[tuple[Value, ...], list[Run]] = {}
        for run in self.runs:
            groups.setdefault(run.setting(factors), []).append(run)
        return list(groups.values())

    def label(self, run: Run, factors: Iterable[str] | None = None) -> str:
        """A run's setting for people: `single, sink, T = 4 ms`."""
        factors = self.factors if factors is None else factors
        return ", ".join(show_value(factor, run.config.get(factor)) for factor in factors)

    def read_table(self) -> LatencyTable | None:
        """The lookup table that the runs share; None where no run has kept it."""
        for run in self.runs:
            with tempfile.TemporaryDirectory() as folder:
                path = self._fetch(run, "latency_table.json", Path(folder))
                if path is not None:
                    return LatencyTable.load(path)
        return None

    def read_architecture(self, run: Run) -> Architecture | None:
        """The network that a run derived at its end; None where it has not kept it."""
        with tempfile.TemporaryDirectory() as folder:
            path = self._fetch(run, "architecture.json", Path(folder))
            return None if path is None else Architecture.load(path)

    def _fetch(self, run: Run, name: str, folder: Path) -> Path | None:
        return fetch_artifact(run.run_id, run.artifact_uri, name, self.tracking_uri, folder)


def sort_runs(runs: Iterable[Run], factors: Iterable[str]) -> list[Run]:
    """The runs by setting, then seed."""
    order = (*factors, SEED)
    return sorted(runs, key=lambda run: [_sort_key(value) for value in run.setting(order)])


def varying_fields(runs: Sequence[Run]) -> tuple[str, ...]:
    """Config fields that differ between runs and make a difference, the seed excepted."""
    fields = dict.fromkeys(name for run in runs for name in run.config)
    return tuple(
        name
        for name in fields
        if name != SEED and name not in _NOT_A_SETTING and len({run.config.get(name) for run in runs}) > 1
    )


def same_terms(training: Run) -> tuple[Value, ...]:
    """What trainings must share to be compared: budget, protocol, images and code."""
    config = [
        (name, value)
        for name, value in sorted(training.config.items())
        if name not in (SEED, *OF_NETWORK, *_NOT_A_SETTING)
    ]
    tags = (training.tags.get(f"tfnas.{name}") for name in ("data_fingerprint", "code_version"))
    return (str(config), *tags)


def _sort_key(value: Value) -> tuple[int, float, str]:
    if isinstance(value, int | float):
        return (0, float(value), "")
    # Baselines first: single before bi, skip before sink.
    return (1, 0.0, {"single": "a", "skip": "a"}.get(str(value), str(value)))
