"""ExperimentSpec: what one YAML file asks for, before anything is resolved or run."""

import difflib
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import Field, ValidationError, model_validator

from experiments.places.resources import Resources
from experiments.specs.study_spec import Study
from experiments.specs.yaml_file import read_yaml
from nas.config import ConfigRecord, SearchConfig, TrainConfig
from nas.foundation.errors import UserError
from nas.foundation.validation import first_error

Section = Literal["base", "cells", "grid", "study.space"]
Config = TypeVar("Config", SearchConfig, TrainConfig)

EXPERIMENT_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
"""It is the default output folder's name, too, and leads nowhere else."""

MAX_CELLS = 10_000
"""Searches or trainings that one file may ask for."""

_PATH_FIELDS = ("data_dir", "train_list", "test_list", "latency_table")


class ExperimentSpec(ConfigRecord):
    """One YAML file: `base` holds for every cell, `cells` and `grid` say how they differ.

    Each entry of `cells` is combined with each combination of the values in `grid`; every
    resulting cell is one search. All fields are those of `SearchConfig`, but that
    `target_latency_ms` may also be text like `40%`: that far up the interval of latencies that
    the lookup table's networks span.
    """

    config_type: ClassVar[type[ConfigRecord]] = SearchConfig

    experiment: Annotated[str, Field(pattern=EXPERIMENT_NAME)]
    """Name of the MLflow experiment; also the default output folder's."""

    base: dict[str, Any] = Field(default_factory=dict)
    """Fields that all cells share."""

    cells: list[dict[str, Any]] | None = None
    """Combinations to compare, each with the same fields."""

    grid: dict[str, list[Any]] = Field(default_factory=dict)
    """Factors and their values, all combined with each other."""

    share_warmup: bool = True
    """Whether cells whose warm-up is the same compute it once; their results are the same either way."""

    study: Study | None = None
    """In place of `cells` and `grid`: a search space, and how to look for its best points."""

    resources: Resources = Field(default_factory=Resources)

    def factor_names(self) -> list[str]:
        """Fields in which the cells differ, in the file's order."""
        if self.study:
            return list(self.study.space)
        return [*(self.cells[0] if self.cells else ()), *self.grid]

    def section_of(self, field: str) -> Section:
        """Where in the file a field stands (`base` if nowhere)."""
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


class TrainingSpec(ExperimentSpec):
    """A YAML file of trainings: each of the `architectures` is trained for each combination.

    All other fields are those of `TrainConfig`, and hold for every architecture alike.
    """

    config_type: ClassVar[type[ConfigRecord]] = TrainConfig

    architectures: Annotated[list[str], Field(min_length=1)]
    """Files, `run:RUN_ID` of a search, `experiment:NAME` for all its finished searches, or names."""

    @model_validator(mode="after")
    def _shares_nothing(self) -> Self:
        if "share_warmup" in self.model_fields_set:
            raise ValueError("share_warmup: has no effect on trainings; remove it")
        return self


def load_spec(path: Path) -> ExperimentSpec:
    """Reads and checks a YAML file.

    Raises:
        UserError: the file is no experiment, or its sections contradict each other.
    """
    return check_spec(read_yaml(path), path)


def check_spec(content: dict[str, Any], path: Path) -> ExperimentSpec:
    """Checks the content of a YAML file; one with `architectures` is of trainings.

    Args:
        path: the file, for errors.

    Raises:
        UserError: it is no experiment, or its sections contradict each other.
    """
    if "pruning" in content:
        raise UserError(
            f"{path}: pruning: ending searches early would bias the comparison that a grid makes; remove it "
            "(it goes within `study`)"
        )
    try:
        spec = (TrainingSpec if "architectures" in content else ExperimentSpec)(**content)
    except ValidationError as error:
        raise UserError(f"{path}: {_explain(error)}") from None
    for problem in _contradictions(spec):
        raise UserError(f"{path}: {problem}")
    return spec


def parse_fields(
    config_type: type[Config], spec: ExperimentSpec, fields: dict[str, Any], path: Path
) -> Config:
    """Validates one cell's fields; relative paths in them are relative to the file's folder.

    Args:
        path: the YAML file.

    Raises:
        UserError: names file, section, field, value and remedy.
    """
    try:
        config = config_type(**with_absolute_paths(fields, path.resolve().parent))
    except ValidationError as error:
        field = str(error.errors()[0]["loc"][0]) if error.errors()[0]["loc"] else ""
        prefix = f"{spec.section_of(field)}." if field in fields else ""
        raise UserError(f"{path}: {prefix}{_explain(error)}") from None
    if config.num_threads > spec.resources.cpus_per_trial:
        raise UserError(
            f"{path}: {spec.section_of('num_threads')}.num_threads: {config.num_threads}; a trial has "
            f"{spec.resources.cpus_per_trial} cores; set resources.cpus_per_trial: {config.num_threads}"
        )
    return _place_on_device(spec, config, path)


def _place_on_device(spec: ExperimentSpec, config: Config, path: Path) -> Config:
    """Ray shows a trial the GPUs that are reserved for it, as the first ones; and no others."""
    is_gpu_reserved = spec.resources.gpus_per_trial > 0
    if config.device == "auto":
        return config.model_copy(update={"device": "cuda" if is_gpu_reserved else "cpu"})
    where = f"{path}: {spec.section_of('device')}.device: {config.device}"
    if config.device.startswith("cuda:"):
        raise UserError(f"{where}; a trial sees the GPUs that it reserves, counted anew; write cuda")
    if config.device == "cuda" and not is_gpu_reserved:
        raise UserError(f"{where}; trials reserve no GPU; set resources.gpus_per_trial to 1, or a part of 1")
    return config


def _contradictions(spec: ExperimentSpec) -> Iterator[str]:
    if spec.study:
        yield from _study_contradictions(spec, spec.study)
    elif not spec.cells and not spec.grid and not isinstance(spec, TrainingSpec):
        yield "grid: missing or empty; add what to compare, for instance `seed: [0, 1]`"
    num_cells = math.prod(map(len, spec.grid.values())) * len(spec.cells or [{}])
    if isinstance(spec, TrainingSpec):
        num_cells *= len(spec.architectures)
    if num_cells > MAX_CELLS:
        yield f"grid: {num_cells} combinations; at most {MAX_CELLS} in a file; split it"
    for index, cell in enumerate(spec.cells or []):
        if not cell:
            yield f"cells[{index}]: empty; give its fields, or remove it"
        if spec.cells and set(cell) != set(spec.cells[0]):
            odd = sorted(set(cell) ^ set(spec.cells[0]))[0]
            yield f"cells[{index}]: '{odd}' is not in every entry; give all entries the same fields"
    for field, values in spec.grid.items():
        if not values:
            yield f"grid.{field}: empty; give at least one value, or remove it"
        if any(_same(one, other) for one, other in itertools.combinations(values, 2)):
            yield f"grid.{field}: {values}: a value is there twice; remove one"
    for field in spec.factor_names():
        is_conditional = spec.study is not None and spec.study.space[field].when
        if field in spec.base and not is_conditional:
            yield f"base.{field}: also in `{spec.section_of(field)}`; remove one of the two"
        if field in spec.grid and spec.cells and field in spec.cells[0]:
            yield f"grid.{field}: also in `cells`; remove one of the two"
    for field in [*spec.base, *spec.factor_names()]:
        if field == "architecture" and isinstance(spec, TrainingSpec):
            yield f"{spec.section_of(field)}.architecture: move it to `architectures`, where all are listed"
        if field not in spec.config_type.model_fields:
            yield f"{spec.section_of(field)}.{field}: unknown field; {_suggest(field, spec.config_type)}"


def _study_contradictions(spec: ExperimentSpec, study: Study) -> Iterator[str]:
    for section in ("cells", "grid"):
        if getattr(spec, section):
            yield (
                f"{section}: does not go with `study`: a grid runs every point, a study those that its "
                "sampler chooses; name the values as `choices` in study.space, or remove `study`"
            )
    if isinstance(spec, TrainingSpec):
        yield "study: does not go with `architectures`: a study is of searches; remove one of the two"
    if study.seeds is not None and "seed" in spec.base:
        yield "base.seed: also in study.seeds; remove one of the two"
    yield from (f"study.{problem}" for problem in study.problems())


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


def _suggest(field: str, config_type: type[ConfigRecord]) -> str:
    close = difflib.get_close_matches(field, config_type.model_fields, n=1)
    return f"did you mean '{close[0]}'?" if close else "remove it or correct its spelling"


def _explain(error: ValidationError) -> str:
    """The first complaint in one line, with what people trip over in YAML."""
    message = " ".join(first_error(error).split())
    value = error.errors()[0]["input"]
    if isinstance(value, str) and error.errors()[0]["type"] in ("float_type", "int_type"):
        if _is_number(value):
            return f"{message}; YAML reads it as text: write it like 1.0e-5"
        return f"{message}; write a number"
    if isinstance(value, bool):
        return f"{message}; YAML reads on, off, yes and no as true or false: quote text"
    return message


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def with_absolute_paths(fields: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A config's fields with paths that hold wherever one is."""
    return {
        field: str(folder / value)
        if field in _PATH_FIELDS and isinstance(value, str) and value != "measure"
        else value
        for field, value in fields.items()
    }
