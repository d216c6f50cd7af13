"""A bundle as a store of runs: its records, and the files that they name."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from analysis.bundles.archive import read_member, to_json, unpack
from analysis.reading import tags
from analysis.reading.run import IMAGES, Run
from analysis.reading.run_reader import NUM_DIGITS_OF_IMAGES
from analysis.reading.run_store import ExperimentRuns, no_such_run
from analysis.reading.values import Value
from nas.foundation.errors import UserError
from nas.foundation.escaping import escape_unprintable
from nas.foundation.validation import first_error

FORMAT = 1
"""Raise it when an older tfnas would misread what this one writes."""

_NAME = re.compile(r"[\w=+][\w.=+ -]{0,120}")
_LATEST_MS = 10**14
"""In the year 5138."""

_LARGEST = 2**63
"""No integer of a config is larger."""

RECORDS = "runs.json"
"""The member with the records of all runs."""


def _check_size(value: Value) -> Value:
    if isinstance(value, int) and abs(value) > _LARGEST:
        raise ValueError("too large")
    return value


class RunRecord(BaseModel):
    """A run in `runs.json`.

    Attributes:
        config: the flat config, with values of their types.
        metrics: the last value of each metric; None where it is not finite.
        files: path in the bundle of each file, by the name that the run knows it by.
    """

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    run_id: str = Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9_-]+$")
    name: str
    status: str
    start_time_ms: int = Field(ge=0, le=_LATEST_MS)
    config: dict[str, Annotated[Value, AfterValidator(_check_size)]]
    metrics: dict[str, float | None]
    tags: dict[str, str]
    files: dict[str, str]

    @classmethod
    def of(cls, run: Run, run_tags: Mapping[str, str], files: Mapping[str, str]) -> Self:
        """Records a run."""
        return cls(
            run_id=run.run_id,
            name=run.name,
            status=run.status,
            start_time_ms=run.start_time_ms,
            config={name: value for name, value in run.config.items() if name != IMAGES},
            metrics={
                name: value if abs(value) < float("inf") else None for name, value in run.metrics.items()
            },
            tags=dict(run_tags),
            files=dict(files),
        )

    def to_run(self) -> Run:
        """The run, without its files."""
        kind = self.tags.get(tags.KIND, "other")
        config = dict(self.config)
        if kind in ("search", "train"):
            config[IMAGES] = self.tags.get(tags.DATA_FINGERPRINT, tags.UNKNOWN)[:NUM_DIGITS_OF_IMAGES]
        return Run(
            run_id=self.run_id,
            name=escape_unprintable(self.name),
            status=self.status,
            kind=kind,
            config=config,
            metrics={name: float("nan") if value is None else value for name, value in self.metrics.items()},
            tags=self.tags,
            failure=self.tags.get(tags.FAILURE),
            start_time_ms=self.start_time_ms,
            artifact_uri="",
        )


class BundleRecord(BaseModel):
    """The content of `runs.json`.

    Attributes:
        format: version of the layout of the bundle.
        tfnas: version that wrote it.
        experiment_id: in the store that it was written from.
        views: kinds of runs that MLflow has a saved view of.
    """

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    format: int
    tfnas: str
    experiment: str
    experiment_id: str
    views: list[str]
    runs: list[RunRecord]

    def to_bytes(self) -> bytes:
        """The member."""
        return to_json(self.model_dump())


@dataclass(frozen=True)
class BundleStore:
    """A bundle as a `RunStore`.

    Attributes:
        name: of its file, for errors.
        files: the content of each member, by its path.
    """

    name: str
    record: BundleRecord = field(repr=False)
    files: Mapping[str, bytes] = field(repr=False)
    tracking_uri = ""
    refuses_damage = True

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Reads a bundle into memory.

        Raises:
            UserError: it is none, is damaged, or a newer tfnas wrote it.
        """
        return cls.of(str(path), unpack(path))

    @classmethod
    def of(cls, name: str, files: Mapping[str, bytes]) -> Self:
        """Makes a store of the members of a bundle.

        Raises:
            UserError: see `open`.
        """
        try:
            record = _parse(files.get(RECORDS), set(files))
        except ValueError as error:
            raise UserError(f"{name}: not a bundle: {error}") from None
        return cls(name, record, files)

    @property
    def experiment(self) -> str:
        """The name of its only experiment."""
        return self.record.experiment

    def is_slow(self, run: Run) -> bool:
        """See `RunStore`."""
        return False

    def read_experiment(self, name: str) -> ExperimentRuns:
        """See `RunStore`."""
        if name != self.experiment:
            raise UserError(
                f"{self.name}: holds experiment '{self.experiment}', not '{name}'; leave the name out"
            )
        runs = tuple(record.to_run() for record in self.record.runs)
        return ExperimentRuns(name, self.record.experiment_id, frozenset(self.record.views), runs)

    def find_runs(self, name: str) -> list[Run]:
        """See `RunStore`."""
        runs = self.read_experiment(self.experiment).runs
        found = [run for run in runs if run.name == name]
        if not found and name:
            found = [run for run in runs if run.run_id.startswith(name)]
        if not found:
            raise UserError(no_such_run(name, [run.name for run in runs]))
        return found

    def fetch(self, run: Run, name: str, folder: Path) -> Path | None:
        """See `RunStore`."""
        content = self.content_of(run.run_id, name)
        if content is None:
            return None
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / name
        path.write_bytes(content)
        return path

    def content_of(self, run_id: str, name: str) -> bytes | None:
        """The content of a file of a run; None if the run has none of that name."""
        path = self._paths.get(run_id, {}).get(name)
        return None if path is None else self.files[path]

    @cached_property
    def _paths(self) -> dict[str, dict[str, str]]:
        return {record.run_id: record.files for record in self.record.runs}


def _parse(content: bytes | None, paths: set[str]) -> BundleRecord:
    if content is None:
        raise ValueError(f"{RECORDS} is missing")
    fields: Any = read_member(content, RECORDS)
    version = fields.get("format") if isinstance(fields, dict) else None
    if isinstance(version, int) and version > FORMAT:
        raise ValueError(f"format {version} is newer than {FORMAT}, which this tfnas knows; update tfnas")
    if version != FORMAT:
        raise ValueError(f"{RECORDS} has format {str(version)[:20]!r}; {FORMAT} is the only one so far")
    try:
        record = BundleRecord.model_validate(fields)
    except ValidationError as error:
        raise ValueError(f"{RECORDS}: {first_error(error)}") from None
    if len({run.run_id for run in record.runs}) < len(record.runs):
        raise ValueError(f"{RECORDS}: two runs have the same id")
    for run in record.runs:
        for name, path in run.files.items():
            if path not in paths:
                raise ValueError(f"{RECORDS}: run {run.run_id}: {name!r} is at {path!r}, which is not there")
            # The name becomes that of a file in a temporary folder.
            if not _NAME.fullmatch(name):
                raise ValueError(f"{RECORDS}: run {run.run_id}: {name!r} is not the name of a file")
    return record
