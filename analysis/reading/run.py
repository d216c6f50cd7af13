"""One run: its config, metrics and files, and what it must share with others to be compared with them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import PurePath

import pandas as pd

from analysis.reading import tags
from analysis.reading.values import Value, order_fields
from nas.foundation.errors import UserError
from nas.search.health import HealthCheck
from nas.search.records import Trajectory
from nas.space.architecture import Architecture
from nas.space.macro_space import Space, get_space

SEED = "seed"

IMAGES = "images"
"""Beside the fields of its config, a run has this one: the first digits of its images' fingerprint.

Where runs are to be compared, it is the name of a folder instead, see `name_images`.
"""

_IMAGE_FIELDS = ("dataset", "max_train_images", "skip_broken_images")
"""Settings that choose images."""

NETWORK_FIELDS = ("architecture", "resolution")
"""Fields of a training that name the network to train."""

NOT_A_SETTING = frozenset(
    {
        *("latency_table", "data_dir", "train_list", "arch_list", "test_list"),
        *("num_data_workers", "download", "device", "kernels"),
    }
)
"""Fields that say where things are or what computes; the table itself is compared by its fingerprint."""


_MAKERS = {"sources": tags.CODE_VERSION, "sets of libraries": tags.LIBRARIES, "devices": tags.DEVICE}
"""What made a run, by the tag that names it. Runs that differ in it may be compared."""


@dataclass(frozen=True)
class ComparisonBasis:
    """What runs must share to be compared: the lookup table and the version of results."""

    table_fingerprint: str
    results_version: str

    def __str__(self) -> str:
        return f"table {self.table_fingerprint[:8]}, results version {self.results_version}"


@dataclass(frozen=True)
class Run:
    """One cell of a grid as MLflow knows it.

    Attributes:
        run_id: empty for a registered cell that MLflow has no run of.
        config: the flat config, with values of their types; its `images` are part of it.
        metrics: the last value of each metric.
        failure: why the run failed, in one line; None if unknown.
        start_time_ms: since 1970.
        epochs: one row per epoch, indexed by epoch, one column per metric; None if not read.
        trajectory: operators, and maybe alphas and betas, of all epochs; None if not read.
        architecture: the derived network of the last epoch; None if not read.
        health: the health checks of a finished search; None if it is older than these, or not read.
        evaluations: one row per network that was evaluated with the weights of a supernet, indexed by the
            number of the evaluation; None if the method evaluates none.
        problem: which of these files could not be read, in one line.
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
    architecture: Architecture | None = None
    health: tuple[HealthCheck, ...] | None = None
    evaluations: pd.DataFrame | None = None
    problem: str | None = None

    @property
    def basis(self) -> ComparisonBasis:
        """What other runs must have in common with this one."""
        # Runs without the tag were made before results had a version.
        return ComparisonBasis(self.tag(tags.TABLE_FINGERPRINT), self.tags.get(tags.RESULTS_VERSION, "1"))

    @property
    def code_version(self) -> str:
        """Hash of the source that made it."""
        return self.tag(tags.CODE_VERSION)

    @property
    def is_finished(self) -> bool:
        """Whether it ended without a failure."""
        return self.status == "FINISHED"

    @property
    def is_read(self) -> bool:
        """Whether the files that every finished search has could be read; see `problem`."""
        return None not in (self.trajectory, self.architecture) and self.epochs is not None

    @property
    def is_healthy(self) -> bool | None:
        """Whether it passed all health checks; None without any."""
        return None if self.health is None else all(check.is_healthy for check in self.health)

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
        """The status, and the reason for a failure."""
        return f"{self.status.lower()}: {self.failure}" if self.failure else self.status.lower()

    @cached_property
    def space(self) -> Space:
        """The macro space that was searched.

        Raises:
            UserError: the run does not name one, or it is unknown.
        """
        if "space" not in self.config:
            raise UserError(f"run {self.name}: its config has no space; restore it, or delete the run")
        return get_space(str(self.config["space"]))

    def tag(self, name: str) -> str:
        """The value of a tag; `unknown` if the run lacks it."""
        return self.tags.get(name, tags.UNKNOWN)

    def number(self, name: str) -> float:
        """A numeric field of the config; NaN if the run has none."""
        value = self.config.get(name)
        return float(value) if isinstance(value, int | float) else float("nan")

    def metric(self, name: str) -> float:
        """The last value of a metric; NaN if the run has none."""
        return self.metrics.get(name, float("nan"))

    def setting(self, factors: Iterable[str]) -> tuple[Value, ...]:
        """The values of these factors."""
        return tuple(self.config.get(factor) for factor in factors)


def sort_runs(runs: Iterable[Run], factors: Iterable[str]) -> list[Run]:
    """Sorts runs by setting, then seed."""
    order = (*order_fields(factors), SEED)
    return sorted(runs, key=lambda run: [_sort_key(value) for value in run.setting(order)])


def name_images(runs: Iterable[Run]) -> list[Run]:
    """Returns the runs with the names of their images: of a list, else of a folder, else digits.

    Images of the same name keep digits beside it.
    """
    runs = list(runs)
    name_of = {run.config.get(IMAGES): name for run in runs if (name := _source_name(run))}
    counts = Counter(name_of.values())

    def named(value: Value) -> Value:
        name = name_of.get(value)
        return value if name is None else name if counts[name] == 1 else f"{name} ({str(value)[:6]})"

    return [replace(run, config={**run.config, IMAGES: named(run.config.get(IMAGES))}) for run in runs]


def _source_name(run: Run) -> str:
    """The name of the list or folder of a run's images; empty if they have none, or MLflow has no run."""
    source = run.config.get("train_list") or run.config.get("data_dir")
    return PurePath(str(source)).name if source else ""


def varying_fields(runs: Sequence[Run]) -> tuple[str, ...]:
    """Returns the settings that differ between runs, except the seed.

    Images that follow from settings that choose images are not a setting of their own.
    """
    fields = dict.fromkeys(name for run in runs for name in run.config)
    varying = tuple(
        name
        for name in fields
        if name != SEED and name not in NOT_A_SETTING and len({run.config.get(name) for run in runs}) > 1
    )
    if IMAGES not in varying:
        return varying
    chosen_by = [name for name in varying if name in _IMAGE_FIELDS]
    num_choices = len({run.setting(chosen_by) for run in runs})
    if len({run.setting([*chosen_by, IMAGES]) for run in runs}) > num_choices:
        return varying
    return tuple(name for name in varying if name != IMAGES)


def training_terms(training: Run) -> tuple[Value, ...]:
    """Returns what trainings must share to be compared: budget, protocol, images and results version."""
    config = [
        (name, value)
        for name, value in sorted(training.config.items())
        if name not in (SEED, *NETWORK_FIELDS, *NOT_A_SETTING)
    ]
    return (str(config), training.tag(tags.DATA_FINGERPRINT), training.basis.results_version)


def describe_makers(runs: Iterable[Run]) -> dict[str, list[str]]:
    """Returns the sources, libraries and devices that made the runs, `unknown` where a run does not say."""
    runs = tuple(runs)
    return {noun: sorted({run.tag(tag) for run in runs}) for noun, tag in _MAKERS.items()}


def notice_makers(runs: Iterable[Run]) -> list[str]:
    """Returns one line if several sources, libraries or devices made the runs, else nothing."""
    makers = {noun: found for noun, found in describe_makers(runs).items() if len(found) > 1}
    if not makers:
        return []
    counts = " and ".join(f"{len(found)} {noun}" for noun, found in makers.items())
    sources = ", ".join(version[:12] for version in makers.get("sources", ()))
    choice = f"; to read one source only, use --code-version with one of {sources}" if sources else ""
    return [f"the runs come from {counts}{choice}"]


def _sort_key(value: Value) -> tuple[int, float, str]:
    if isinstance(value, int | float):
        return (0, float(value), "")
    # Baselines first: single before the other samplings, skip before sink; then the remedy itself.
    return (1, 0.0, {"single": "", "skip": "", "bi_random": " "}.get(str(value), str(value)))
