"""Registration: a grid and its claims as a launch recorded them in MLflow before its first trial."""

import hashlib
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from analysis.reading import tags
from analysis.reading.run import IMAGES, Run
from analysis.reading.run_store import RunStore
from analysis.reading.values import Value, parse_value
from nas.foundation.errors import UserError
from nas.foundation.escaping import escape_unprintable
from nas.foundation.validation import first_error, read_json

FILE = "registration.json"
NOT_STARTED = "NOT STARTED"
"""Status of a registered cell that MLflow has no run of."""


@dataclass(frozen=True)
class Registration:
    """What a launch registered.

    Attributes:
        run_id: the first launch that holds exactly this.
        time_ms: when that launch started, since 1970.
        last_time_ms: when the last launch that registered this started.
        file: name of the YAML file.
        kind: `search` or `train`.
        results_version: of its cells.
        cells: the config of each cell by its hash, in the order of the YAML file. Fields that are no
            settings are not in it; `images` is.
        names: of the cells, by their hashes.
        tags: what else the run of a cell will be tagged with, by its hash.
        claims: records by name, not checked.
    """

    run_id: str
    time_ms: int
    file: str
    kind: str
    cells: Mapping[str, Mapping[str, Value]] = field(repr=False)
    names: Mapping[str, str] = field(repr=False)
    claims: Mapping[str, Mapping[str, Any]] = field(repr=False)
    last_time_ms: int = 0
    results_version: str = "1"
    tags: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)

    def complete(self, run: Run) -> Mapping[str, Value]:
        """The config of a cell's run, with every setting as it is registered.

        A run may have been made from another file, or by a version without some field: as it is of the
        same cell, that made no difference.
        """
        return {**run.config, **self.cells[run.tag(tags.CELL)]}

    def not_started(self, cell: str) -> Run:
        """A cell that MLflow has no run of."""
        return Run(
            run_id="",
            name=self.names[cell],
            status=NOT_STARTED,
            kind=self.kind,
            config=self.cells[cell],
            metrics={},
            tags={
                **self.tags.get(cell, {}),
                tags.CELL: cell,
                tags.KIND: self.kind,
                tags.RESULTS_VERSION: self.results_version,
            },
            failure=None,
            start_time_ms=0,
            artifact_uri="",
        )


@dataclass(frozen=True)
class DamagedRegistration:
    """A registration that cannot be read.

    Attributes:
        problem: in one line.
    """

    kind: str
    last_time_ms: int
    problem: str


class _CellContent(BaseModel):
    model_config = ConfigDict(strict=True)

    name: str
    fields: dict[str, Value]
    images: str
    tags: dict[str, str] = {}


class _Content(BaseModel):
    model_config = ConfigDict(strict=True)

    kind: Literal["search", "train"]
    file: str
    results_version: str = "1"
    claims: dict[str, dict[str, Any]]
    base: dict[str, Value]
    cells: dict[str, _CellContent]


def parse_registration(
    content: Any, where: str = FILE, *, run_id: str = "", time_ms: int = 0, last_time_ms: int = 0
) -> Registration:
    """Returns what a launch registers, or would register, from the JSON that records it.

    Args:
        where: what the error names.

    Raises:
        UserError: it is something else.
    """
    if not isinstance(content, dict):
        raise UserError(f"{where}: damaged: it is no record of a grid")
    try:
        parsed = _Content.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{where}: damaged: {first_error(error)}") from None
    base = _as_run_has(parsed.base)
    return Registration(
        run_id=run_id,
        time_ms=time_ms,
        last_time_ms=last_time_ms,
        file=escape_unprintable(parsed.file),
        kind=parsed.kind,
        results_version=parsed.results_version,
        cells={
            cell: {**base, **_as_run_has(own.fields), IMAGES: own.images}
            for cell, own in parsed.cells.items()
        },
        names={cell: escape_unprintable(own.name) for cell, own in parsed.cells.items()},
        tags={cell: own.tags for cell, own in parsed.cells.items()},
        claims=parsed.claims,
    )


def read_registrations(
    launches: Iterable[Run], store: RunStore
) -> tuple[list[Registration], list[DamagedRegistration]]:
    """Reads what launches registered, each content once, in the order in which it was registered first.

    Raises:
        UserError: the store cannot be read.
    """
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in sorted(launches, key=lambda run: run.start_time_ms):
        if tags.REGISTRATION in run.tags:
            groups.setdefault((run.tag(tags.REGISTERS), run.tag(tags.REGISTRATION)), []).append(run)
    read = [_read(group, *key, store) for key, group in groups.items()]
    sound = [one for one in read if isinstance(one, Registration)]
    return sound, [one for one in read if isinstance(one, DamagedRegistration)]


def _read(runs: Sequence[Run], kind: str, sha256: str, store: RunStore) -> Registration | DamagedRegistration:
    """Reads one content from the first of its launches, in order of time, that holds it unharmed."""
    problem = ""
    for place, run in enumerate(runs):
        with tempfile.TemporaryDirectory() as folder:
            path = store.fetch(run, FILE, Path(folder))
            where = f"{FILE} of launch {run.short_id}"
            try:
                if path is None:
                    raise UserError(f"{where}: missing")
                # An earlier launch whose file is missing proves nothing about its time.
                return _parse_file(path, where, kind, sha256, runs[place:])
            except UserError as error:
                problem = str(error)
    return DamagedRegistration(kind, runs[-1].start_time_ms, problem)


def _parse_file(path: Path, where: str, kind: str, sha256: str, runs: Sequence[Run]) -> Registration:
    if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise UserError(f"{where}: damaged: its content is not what the launch registered")
    try:
        content = read_json(path, "a registration")
    except UserError as error:
        raise UserError(f"{where}: {str(error).removeprefix(f'{path}: ')}") from None
    registration = parse_registration(
        content,
        where,
        run_id=runs[0].run_id,
        time_ms=runs[0].start_time_ms,
        last_time_ms=runs[-1].start_time_ms,
    )
    if registration.kind != kind:
        raise UserError(f"{where}: damaged: kind is '{registration.kind}', not '{kind}'")
    return registration


def _as_run_has(fields: Mapping[str, Value]) -> dict[str, Value]:
    """Values as the params of a run are read, so that both are equal."""
    return {name: parse_value(str(value)) for name, value in fields.items()}
