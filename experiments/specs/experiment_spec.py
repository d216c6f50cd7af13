"""ExperimentSpec: the content of one YAML file, before anything is resolved or run."""

import difflib
import itertools
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import ConfigDict, Field, PrivateAttr, TypeAdapter, ValidationError, model_validator
from pydantic_core import ErrorDetails

from experiments.places.resources import Resources
from experiments.specs.settings import Setting, apply_settings, changed_text
from experiments.specs.study_spec import Study, has_repeated
from experiments.specs.yaml_file import parse_yaml, read_yaml_file
from nas.config import PATH_FIELDS, ConfigRecord, SearchConfig, TrainConfig
from nas.data.datasets import DATASETS
from nas.foundation.errors import ErrorList, UserError
from nas.foundation.validation import describe_error, show_value

Section = Literal["base", "cells", "grid", "study.space"]
GridKind = Literal["search", "study", "training"]
Config = TypeVar("Config", SearchConfig, TrainConfig)

EXPERIMENT_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
"""The default output folder has this name too, so it must not lead anywhere else."""

MAX_CELLS = 10_000
"""Searches or trainings that one file may ask for."""

_TYPE_NAMES = ("int", "float", "str", "bool")


class ExperimentSpec(ConfigRecord):
    """One YAML file: `base` holds for every cell, `cells` and `grid` define how cells differ.

    Each entry of `cells` is combined with each combination of the values in `grid`; every result is one
    search. The fields are those of `SearchConfig`. `target_latency_ms` may also be text like `40%`: that far
    up the interval of latencies that networks of the lookup table can have.
    """

    config_type: ClassVar[type[ConfigRecord]] = SearchConfig

    experiment: Annotated[str, Field(pattern=EXPERIMENT_NAME)]
    """Name of the MLflow experiment and of the default output folder."""

    base: dict[str, Any] = Field(default_factory=dict)
    """Fields that all cells share."""

    cells: list[dict[str, Any]] | None = None
    """Combinations to compare, each with the same fields."""

    grid: dict[str, list[Any]] = Field(default_factory=dict)
    """Factors and their values, all combined with each other."""

    share_warmup: bool = True
    """Whether cells with the same warm-up compute it once; results are the same either way."""

    claims: dict[str, dict[str, Any] | None] = Field(default_factory=dict)
    """Claims to test, by name: adds to those of the paper, or replaces fields of one; null drops one."""

    study: Study | None = None
    """Instead of `cells` and `grid`: a search space, and how to look for its best points."""

    resources: Resources = Field(default_factory=Resources)
    """Cores and GPUs of a trial, and how many trials run at a time."""

    _text: str = PrivateAttr("")

    @property
    def text(self) -> str:
        """The YAML file as it was read and checked."""
        return self._text

    @property
    def grid_kind(self) -> GridKind:
        """The kind of grid that the file describes."""
        return "study" if self.study else "search"

    def factor_names(self) -> list[str]:
        """Fields in which the cells differ, in the file's order."""
        if self.study:
            return list(self.study.space)
        return [*(self.cells[0] if self.cells else ()), *self.grid]

    def section_of(self, field: str) -> Section:
        """The section of the file that holds a field (`base` if none does)."""
        if self.study and field in self.study.space:
            return "study.space"
        if field in self.grid:
            return "grid"
        return "cells" if self.cells and field in self.cells[0] else "base"

    def combinations(self) -> Iterator[dict[str, Any]]:
        """The factors of each cell, in the file's order."""
        for shared in self.cells or [{}]:
            for values in itertools.product(*self.grid.values()):
                yield shared | dict(zip(self.grid, values, strict=True))

    @property
    def num_cells(self) -> int:
        """Number of searches or trainings of the grid."""
        return math.prod(map(len, self.grid.values())) * len(self.cells or [{}])

    def values(self) -> Iterator[tuple[Section, str, Any]]:
        """All values of fields, with their section; without those that only the whole of a cell can judge."""
        sections: dict[Section, Sequence[tuple[str, Sequence[Any]]]] = {
            "base": [(field, [value]) for field, value in self.base.items()],
            "cells": [(field, [value]) for cell in self.cells or [] for field, value in cell.items()],
            "grid": list(self.grid.items()),
        }
        for section, fields in sections.items():
            for field, values in fields:
                # A share of an interval is no number yet.
                yield from (
                    (section, field, value)
                    for value in values
                    if field in self.config_type.model_fields
                    and not (field == "target_latency_ms" and isinstance(value, str))
                )

    def problems(self) -> Iterator[str]:
        """Contradictions between sections: field, value and remedy of each, in one line."""
        yield from self._grid_problems()
        if self.num_cells > MAX_CELLS:
            yield f"grid: {self.num_cells} combinations; at most {MAX_CELLS} in a file; split it"
        yield from self._cells_problems()
        for field, values in self.grid.items():
            if not values:
                yield f"grid.{field}: empty; give at least one value, or remove it"
            if has_repeated(values):
                yield f"grid.{field}: {values}: a value is there twice; remove one"
        yield from self._field_problems()

    def _grid_problems(self) -> Iterator[str]:
        if self.study is None:
            if not self.cells and not self.grid:
                yield "grid: missing or empty; add what to compare, for instance `seed: [0, 1]`"
            return
        for section in ("cells", "grid"):
            if getattr(self, section):
                yield (
                    f"{section}: does not go with `study`: a grid runs every point, a study those that its "
                    "sampler chooses; name the values as `choices` in study.space, or remove `study`"
                )
        if self.claims:
            yield (
                f"claims: {', '.join(self.claims)}: does not go with `study`: a study compares no settings; "
                "remove it, and test the claims with a grid"
            )
        if self.study.seeds is not None and "seed" in self.base:
            yield "base.seed: also in study.seeds; remove one of the two"
        yield from (f"study.{problem}" for problem in self.study.problems())

    def _cells_problems(self) -> Iterator[str]:
        for index, cell in enumerate(self.cells or []):
            if not cell:
                yield f"cells[{index}]: empty; give its fields, or remove it"
            if self.cells and set(cell) != set(self.cells[0]):
                odd = sorted(set(cell) ^ set(self.cells[0]))[0]
                yield f"cells[{index}]: '{odd}' is not in every entry; give all entries the same fields"

    def _field_problems(self) -> Iterator[str]:
        for field in self.factor_names():
            is_conditional = self.study is not None and self.study.space[field].when
            if field in self.base and not is_conditional:
                yield f"base.{field}: also in `{self.section_of(field)}`; remove one of the two"
            if field in self.grid and self.cells and field in self.cells[0]:
                yield f"grid.{field}: also in `cells`; remove one of the two"
        yield from self.unknown_fields()

    def unknown_fields(self) -> Iterator[str]:
        """A line for each field that a config does not have."""
        for field in [*self.base, *self.factor_names()]:
            if field not in self.config_type.model_fields:
                yield f"{self.section_of(field)}.{field}: unknown field; {_suggest(field, self.config_type)}"


class TrainingSpec(ExperimentSpec):
    """A YAML file of trainings: each of the `architectures` is trained for each combination.

    All other fields are those of `TrainConfig` and hold for every architecture.
    """

    config_type: ClassVar[type[ConfigRecord]] = TrainConfig

    architectures: Annotated[list[str], Field(min_length=1)]
    """Files, names, `run:RUN_ID` of a search, `experiment:NAME` or `space:NAME`.

    The latter two stand for all finished searches of an experiment, and for all networks of a small space.
    """

    @model_validator(mode="after")
    def _shares_nothing(self) -> Self:
        if "share_warmup" in self.model_fields_set:
            raise ValueError("share_warmup: has no effect on trainings; remove it")
        return self

    @property
    def grid_kind(self) -> GridKind:
        """See `ExperimentSpec`."""
        return "training"

    @property
    def num_cells(self) -> int:
        """See `ExperimentSpec`."""
        return super().num_cells * len(self.architectures)

    def problems(self) -> Iterator[str]:
        """See `ExperimentSpec`."""
        if self.study:
            yield "study: does not go with `architectures`: a study is of searches; remove one of the two"
        else:
            yield from super().problems()

    def _grid_problems(self) -> Iterator[str]:
        if self.claims:
            yield (
                f"claims: {', '.join(self.claims)}: does not go with `architectures`: claims are about "
                "searches; move it to the file of the searches"
            )

    def _field_problems(self) -> Iterator[str]:
        for field in [*self.base, *self.factor_names()]:
            if field == "architecture":
                yield (
                    f"{self.section_of(field)}.architecture: move it to `architectures`, where all are listed"
                )
        yield from super()._field_problems()


def load_spec(path: Path, settings: Sequence[Setting] = ()) -> ExperimentSpec:
    """Reads and checks a YAML file.

    Args:
        settings: change its content before it is checked.

    Raises:
        UserError: the file does not describe an experiment, or its sections contradict each other.
    """
    text = read_yaml_file(path)
    content = parse_yaml(text, path)
    if settings:
        content = apply_settings(content, settings, list(TrainingSpec.model_fields))
        text = changed_text(text, content, settings)
    spec = check_spec(content, path)
    spec._text = text
    return spec


def check_spec(content: dict[str, Any], path: Path) -> ExperimentSpec:
    """Checks the content of a YAML file; a file with `architectures` is one of trainings.

    Args:
        path: the file, for errors.

    Raises:
        UserError: the content does not describe an experiment, or its sections contradict each other.
    """
    if "pruning" in content:
        raise UserError(
            f"{path}: pruning: ending searches early would bias the comparison that a grid makes; remove it "
            "(it goes within `study`)"
        )
    errors = ErrorList()
    spec, is_whole = _build(content, path, errors)
    for problem in spec.problems() if is_whole else spec.unknown_fields():
        errors.add(f"{path}: {problem}")
    for section, field, value in spec.values():
        with errors.collecting():
            parse_field(spec.config_type, field, value, f"{path}: {section}")
    errors.check()
    return spec


def _build(content: dict[str, Any], path: Path, errors: ErrorList) -> tuple[ExperimentSpec, bool]:
    """The file without the sections that are wrong, so that the fields of others can be checked, too.

    Returns:
        The rest, and whether it is all.
    """
    is_training = "architectures" in content
    spec_type = TrainingSpec if is_training else ExperimentSpec
    try:
        return spec_type(**content), True
    except ValidationError as error:
        wrong = {details["loc"][0] for details in error.errors() if details["loc"]}
        for details in _distinct(error):
            errors.add(f"{path}: {_explain(details)}")
    must_be_there = {"experiment": "any"} | ({"architectures": ["any"]} if is_training else {})
    rest = {name: value for name, value in content.items() if name not in wrong}
    try:
        return spec_type(**must_be_there | rest), False
    except ValidationError:
        errors.check()
        raise


def parse_fields(
    config_type: type[Config], spec: ExperimentSpec, fields: dict[str, Any], path: Path
) -> Config:
    """Validates the fields of one cell; relative paths are relative to the file's folder.

    Args:
        path: the YAML file.

    Raises:
        UserError: names file, section, field, value and remedy.
    """
    try:
        config = config_type(**with_absolute_paths(fields, path.resolve().parent))
    except ValidationError as error:
        errors = ErrorList()
        for details in _distinct(error):
            field = str(details["loc"][0]) if details["loc"] else ""
            prefix = f"{spec.section_of(field)}." if field in fields else ""
            errors.add(f"{path}: {prefix}{_explain(details)}")
        errors.check()
        raise
    if config.num_threads > spec.resources.cpus_per_trial:
        raise UserError(
            f"{path}: {spec.section_of('num_threads')}.num_threads: {config.num_threads}; a trial has "
            f"{spec.resources.cpus_per_trial} cores; set resources.cpus_per_trial: {config.num_threads}"
        )
    return _with_data_workers(spec, _place_on_device(spec, config, path))


def parse_field(config_type: type[ConfigRecord], field: str, value: Any, where: str) -> Any:
    """Validates a field of a config by itself; returns its value as JSON has it.

    Args:
        where: file and section, for errors.

    Raises:
        UserError: there is no such field, or it cannot have this value.
    """
    if field not in config_type.model_fields:
        raise UserError(f"{where}.{field}: unknown field; {_suggest(field, config_type)}")
    annotation = config_type.model_fields[field].rebuild_annotation()
    adapter = TypeAdapter(annotation, config=ConfigDict(strict=True))
    try:
        return adapter.dump_python(adapter.validate_python(value), mode="json")
    except ValidationError as error:
        raise UserError(f"{where}.{field}: {show_value(value)}: {_explain(error.errors()[0])}") from None


def _with_data_workers(spec: ExperimentSpec, config: Config) -> Config:
    """Image files are decoded by the cores of a trial that `num_threads` leaves."""
    if config.num_data_workers is not None or not DATASETS[config.dataset].is_in_files:
        return config
    num_workers = spec.resources.cpus_per_trial - config.num_threads
    return config.model_copy(update={"num_data_workers": num_workers})


def _place_on_device(spec: ExperimentSpec, config: Config, path: Path) -> Config:
    """A trial sees the GPUs that are reserved for it, numbered from 0, and no others."""
    is_gpu_reserved = spec.resources.gpus_per_trial > 0
    if config.device == "auto":
        return config.model_copy(update={"device": "cuda" if is_gpu_reserved else "cpu"})
    where = f"{path}: {spec.section_of('device')}.device: {config.device}"
    if config.device.startswith("cuda:"):
        raise UserError(f"{where}; a trial sees only the GPUs that it reserves, numbered from 0; write cuda")
    if config.device == "cuda" and not is_gpu_reserved:
        raise UserError(f"{where}; trials reserve no GPU; set resources.gpus_per_trial to 1, or a part of 1")
    return config


def _suggest(field: str, config_type: type[ConfigRecord]) -> str:
    close = difflib.get_close_matches(field, config_type.model_fields, n=1)
    return f"did you mean '{close[0]}'?" if close else "remove it or correct its spelling"


def _distinct(error: ValidationError) -> list[ErrorDetails]:
    """The complaints, one for each value: a value that may be of several types has one for each of them."""
    found: dict[tuple[int | str, ...], ErrorDetails] = {}
    for details in error.errors():
        loc = details["loc"]
        found.setdefault(loc[:-1] if loc and loc[-1] in _TYPE_NAMES else loc, details)
    return list(found.values())


def _explain(details: ErrorDetails) -> str:
    """One of `ValidationError.errors()` in one line, with a hint about common mistakes in YAML."""
    message = " ".join(describe_error(details).split())
    value = details["input"]
    expected = details["type"]
    if isinstance(value, str) and expected in ("float_type", "int_type"):
        if not _is_number(value):
            return f"{message}; write a number"
        example = "100" if expected == "int_type" else "1.0e-5"
        return f"{message}; YAML reads it as text: write it like {example}, without quotes"
    if isinstance(value, bool):
        return f"{message}; YAML reads on, off, yes and no as true or false: quote text"
    if expected == "string_type":
        return f"{message}; quote it"
    if expected == "list_type":
        return f"{message}; write [...] around the values"
    return message


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def with_absolute_paths(fields: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The fields of a config with absolute paths.

    Args:
        folder: what relative paths are relative to.
    """
    return {
        field: str(folder / os.path.expanduser(value))
        if field in PATH_FIELDS and isinstance(value, str) and value != "measure"
        else value
        for field, value in fields.items()
    }
