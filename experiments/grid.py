"""From a spec to its cells: one search each, with a name for people and a hash that identifies it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from experiments.preparation import Preparation
from experiments.spec import ExperimentSpec, parse_fields
from nas.config import SearchConfig
from nas.errors import UserError
from nas.identity import code_version, fingerprint, result_fields
from nas.latency import LatencyTable
from nas.latency.compatibility import Hardware
from nas.latency.table import reachable_interval_ms
from nas.search import check_fit

_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%")
_PLACEHOLDER_MS = 1.0
_NAMED_FIELDS = ("sampling", "depth", "target_latency_ms", "seed")


@dataclass(frozen=True)
class Draft:
    """A cell whose target may still be a share of what its lookup table reaches.

    Attributes:
        target: a number of ms, or text like `40%`.
        config: checked; where `target` is text, `target_latency_ms` is still to be replaced.
    """

    factors: dict[str, Any]
    config: SearchConfig
    target: float | str


@dataclass(frozen=True)
class Cell:
    """One search of a grid.

    Attributes:
        name: for people, `bi-sink-T4.0-s0` for instance; unique within its grid.
        factors: the fields in which cells of the grid differ.
        config: `latency_table` is the path of a file.
        table_fingerprint: of that table.
        data_fingerprint: of the training images.
        code_version: of the code that runs the search.
    """

    name: str
    factors: dict[str, Any]
    config: SearchConfig
    table_fingerprint: str
    data_fingerprint: str
    code_version: str

    @cached_property
    def identity(self) -> dict[str, Any]:
        """All that determines the result."""
        return {
            "config": result_fields(self.config),
            "latency table": self.table_fingerprint,
            "data": self.data_fingerprint,
            "code": self.code_version,
        }

    @cached_property
    def hash(self) -> str:
        """Identifies the cell: equal hashes mean equal results."""
        return fingerprint(self.identity)[:32]

    @property
    def folder_name(self) -> str:
        """A file name that is readable and unique."""
        return f"{re.sub(r'[^A-Za-z0-9._=-]+', '_', self.name)[:80]}-{self.hash[:10]}"


def draft_cells(spec: ExperimentSpec, path: Path) -> list[Draft]:
    """Checks every cell's fields, before anything is measured.

    Args:
        path: the YAML file, for errors and relative paths.

    Raises:
        UserError: a cell is impossible, or needs more cores than a trial has.
    """
    drafts = []
    for factors in spec.combinations():
        fields = spec.base | factors
        target = fields.get("target_latency_ms")
        if isinstance(target, str):
            _check_share(target, f"{path}: {spec.section_of('target_latency_ms')}")
            fields = fields | {"target_latency_ms": _PLACEHOLDER_MS}
        config = _place_on_device(spec, parse_fields(spec, fields, path), path)
        if config.num_threads > spec.resources.cpus_per_trial:
            raise UserError(
                f"{path}: {spec.section_of('num_threads')}.num_threads: {config.num_threads}; a trial has "
                f"{spec.resources.cpus_per_trial} cores; set resources.cpus_per_trial: {config.num_threads}"
            )
        drafts.append(Draft(factors, config, target if isinstance(target, str) else config.target_latency_ms))
    return drafts


def _place_on_device(spec: ExperimentSpec, config: SearchConfig, path: Path) -> SearchConfig:
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


def make_cells(drafts: list[Draft], preparation: Preparation, where: str) -> list[Cell]:
    """Resolves the targets and gives every cell its name and its identity.

    Args:
        where: the YAML file, for errors.

    Raises:
        UserError: a table or images are missing, a target is out of reach, or two cells are the same.
    """
    cells = []
    for draft in drafts:
        table_path, table = preparation.table(draft.config)
        fields = draft.config.model_dump(exclude_unset=True) | {
            "target_latency_ms": _resolve_target(draft.target, table),
            "latency_table": str(table_path),
        }
        config = SearchConfig(**fields)
        _check_fit(config, table, preparation.hardware(config), where)
        factors = {field: getattr(config, field) for field in draft.factors}
        cells.append(
            Cell(
                name=_name(config, factors),
                factors=factors,
                config=config,
                table_fingerprint=table.fingerprint,
                data_fingerprint=preparation.data_fingerprint(config),
                code_version=code_version(),
            )
        )
    _check_distinct(cells, where)
    return cells


def _check_share(target: str, where: str) -> None:
    match = _PERCENT.fullmatch(target.strip())
    if not match or float(match[1]) > 100:
        raise UserError(
            f"{where}.target_latency_ms: '{target}'; write a number of ms, or a share of the reachable "
            "interval from 0% to 100%"
        )


def _resolve_target(target: float | str, table: LatencyTable) -> float:
    if not isinstance(target, str):
        return target
    low_ms, high_ms = reachable_interval_ms(table)
    share = float(target.strip().rstrip("%")) / 100
    # Three digits are what a person would write, and what tells cells apart.
    rounded_ms = float(f"{low_ms + share * (high_ms - low_ms):.3g}")
    return min(max(rounded_ms, low_ms), high_ms)


def _check_fit(config: SearchConfig, table: LatencyTable, hardware: Hardware, where: str) -> None:
    try:
        check_fit(config, table, hardware)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _check_distinct(cells: list[Cell], where: str) -> None:
    seen: dict[str, Cell] = {}
    for cell in cells:
        if cell.hash in seen:
            raise UserError(
                f"{where}: cells {_describe(seen[cell.hash].factors)} and {_describe(cell.factors)} are the "
                "same search; remove one"
            )
        seen[cell.hash] = cell


def _describe(factors: Mapping[str, Any]) -> str:
    return "{" + ", ".join(f"{field}: {value}" for field, value in factors.items()) + "}"


def _name(config: SearchConfig, factors: Mapping[str, Any]) -> str:
    others = [f"{field}={value}" for field, value in factors.items() if field not in _NAMED_FIELDS]
    return "-".join(
        [config.sampling, config.depth, f"T{config.target_latency_ms}", *others, f"s{config.seed}"]
    )
