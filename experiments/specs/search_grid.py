"""SearchGrid: the searches of a YAML file."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

from experiments.cells.cell import check_distinct
from experiments.cells.cell_names import join_names
from experiments.cells.search_cell import SearchCell
from experiments.places.place import Place
from experiments.specs.experiment_spec import ExperimentSpec, parse_fields
from experiments.specs.grid import Grid, Plan
from experiments.specs.preparation import Preparation
from experiments.specs.searched_images import SearchedImages
from nas.config import SearchConfig
from nas.foundation.errors import ErrorList, UserError
from nas.latency.compatibility import Hardware
from nas.latency.table import LatencyTable, reachable_interval_ms
from nas.search.methods import METHODS
from nas.search.search import check_fit

_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%")
_PLACEHOLDER_MS = 1e6
"""Longer than a network takes. A share is added, so that drafts with different targets differ."""

_NAMED_FIELDS = ("method", "sampling", "depth", "target_latency_ms", "seed")


@dataclass(frozen=True)
class Draft:
    """A cell whose target may still be a share of the interval that its lookup table reaches.

    Attributes:
        target: a number of ms, or text like `40%`.
        config: checked; if `target` is text, `target_latency_ms` is a placeholder.
    """

    factors: dict[str, Any]
    config: SearchConfig
    target: float | str


@dataclass(frozen=True)
class SearchGrid(Grid):
    """Searches, whose targets may need a table that is not measured yet."""

    drafts: list[Draft]

    @classmethod
    def of(cls, spec: ExperimentSpec, path: Path) -> Self:
        """Checks every cell's fields.

        Raises:
            UserError: names file, field, value and remedy.
        """
        return cls(path, spec, draft_cells(spec, path))

    def searched_images(self) -> set[SearchedImages]:
        """See `Grid`."""
        return {SearchedImages.of_config(draft.config) for draft in self.drafts}

    def cells(
        self, out: Path, place: Place, report: Callable[[str], None], *, even_if_busy: bool = False
    ) -> list[SearchCell]:
        """The searches; measures a lookup table into the output folder if necessary."""
        self._report_unused(report)
        preparation = Preparation(out, place, str(self.path), report, even_if_busy=even_if_busy)
        return make_cells(self.drafts, preparation, str(self.path))

    def plan(
        self,
        out: Path,
        scratch: Path,
        place: Place,
        report: Callable[[str], None],
        *,
        even_if_busy: bool = False,
    ) -> Plan:
        """See `Grid`."""
        self._report_unused(report)
        preparation = Preparation(out, place, str(self.path), report, even_if_busy=even_if_busy)
        cells = plan_cells(self.drafts, preparation, str(self.path))
        check_distinct(cells, str(self.path))
        return plan_of(cells, preparation)

    def _report_unused(self, report: Callable[[str], None]) -> None:
        for field in _fields_without_effect(self.drafts):
            report(f"{self.path}: warning: {field} has no effect in any of these searches")


@dataclass(frozen=True)
class UnmeasuredSearch(SearchCell):
    """A search whose lookup table is still to be measured, with all that is known before.

    Its hash is not that of the search: the table is a part of it, and often decides the target.

    Attributes:
        table_fingerprint: name of the file that the table will have.
        target: as in `Draft`.
    """

    target: float | str

    @property
    def subject(self) -> str:
        """The target as it was written: a share of the interval has no value without the table."""
        return self.target if isinstance(self.target, str) else f"{self.target:.4g} ms"


def draft_cells(spec: ExperimentSpec, path: Path) -> list[Draft]:
    """Checks the fields of every cell, before anything is measured.

    Args:
        path: the YAML file, for errors and relative paths.

    Raises:
        UserError: a cell is impossible, or needs more cores than a trial has.
    """
    drafts: list[Draft] = []
    errors = ErrorList()
    for factors in spec.combinations():
        with errors.collecting():
            drafts.append(_draft(spec, factors, path))
    errors.check()
    return drafts


def _draft(spec: ExperimentSpec, factors: dict[str, Any], path: Path) -> Draft:
    fields = spec.base | factors
    target = fields.get("target_latency_ms")
    if not isinstance(target, str):
        config = parse_fields(SearchConfig, spec, fields, path)
        return Draft(factors, config, config.target_latency_ms)
    _check_share(target, f"{path}: {spec.section_of('target_latency_ms')}")
    # Another number for each share: cells that differ in it alone are two.
    numeric = {"target_latency_ms": _PLACEHOLDER_MS + _parse_share(target)}
    return Draft(factors, parse_fields(SearchConfig, spec, fields | numeric, path), target)


def make_cells(drafts: list[Draft], preparation: Preparation, where: str) -> list[SearchCell]:
    """Resolves the targets and gives every cell its name and identity.

    Measures tables only after all else is checked, because that takes minutes.

    Args:
        where: the YAML file, for errors.

    Raises:
        UserError: a table or images are missing, a target is out of reach, or two cells are the same.
    """
    planned = plan_cells(drafts, preparation, where)
    check_distinct(planned, where)
    cells = [
        _make_cell(draft, preparation, where) if isinstance(cell, UnmeasuredSearch) else cell
        for draft, cell in zip(drafts, planned, strict=True)
    ]
    check_distinct(cells, where)
    return _with_names(cells)


def plan_cells(drafts: list[Draft], preparation: Preparation, where: str) -> list[SearchCell]:
    """The cells as far as they are known without measuring a table.

    Args:
        where: the YAML file, for errors.

    Raises:
        UserError: images are missing, or a table that should be there; or a target is out of reach.
    """
    return _with_names(
        [
            _plan_cell(draft, preparation)
            if preparation.is_to_measure(draft.config)
            else _make_cell(draft, preparation, where)
            for draft in drafts
        ]
    )


def _plan_cell(draft: Draft, preparation: Preparation) -> UnmeasuredSearch:
    return UnmeasuredSearch(
        name="",
        factors=draft.factors,
        config=draft.config,
        table_fingerprint=preparation.table_path(draft.config).name,
        target=draft.target,
        **_images(draft.config, preparation),
    )


def _make_cell(draft: Draft, preparation: Preparation, where: str) -> SearchCell:
    table_path, table = preparation.table(draft.config)
    fields = draft.config.model_dump(exclude_unset=True) | {
        "target_latency_ms": _resolve_target(draft.target, table),
        "latency_table": str(table_path),
    }
    config = SearchConfig(**fields)
    _check_fit(config, table, preparation.hardware(config), where)
    factors = {field: getattr(config, field) for field in draft.factors}
    return SearchCell(
        name="",
        factors=factors,
        config=config,
        table_fingerprint=table.fingerprint,
        **_images(config, preparation),
    )


def _images(config: SearchConfig, preparation: Preparation) -> dict[str, Any]:
    """What a cell knows of its images, and of what computes it."""
    images = preparation.images(SearchCell, config)
    return {
        "data_fingerprint": images.fingerprint,
        "images": images.description,
        "provenance": preparation.provenance(config),
        "listing": preparation.listing(SearchCell, config),
    }


def plan_of(cells: list[SearchCell], preparation: Preparation) -> Plan:
    """What a launch of cells measures first; see `plan_cells`."""
    waiting = {cell.table_fingerprint: cell.config for cell in cells if isinstance(cell, UnmeasuredSearch)}
    measured = [cell for cell in cells if not isinstance(cell, UnmeasuredSearch)]
    tables = [partial(preparation.describe_measurement, config) for config in waiting.values()]
    return Plan(cells, measured, tables)


def _check_share(target: str, where: str) -> None:
    match = _PERCENT.fullmatch(target.strip())
    if not match or float(match[1]) > 100:
        raise UserError(
            f"{where}.target_latency_ms: '{target}'; write a number of ms, or a share of the reachable "
            "interval from 0% to 100%"
        )


def _parse_share(target: str) -> float:
    return float(target.strip().rstrip("%")) / 100


def _resolve_target(target: float | str, table: LatencyTable) -> float:
    if not isinstance(target, str):
        return target
    low_ms, high_ms = reachable_interval_ms(table)
    share = _parse_share(target)
    # Three digits: what a person would write, and enough to tell cells apart.
    rounded_ms = float(f"{low_ms + share * (high_ms - low_ms):.3g}")
    return min(max(rounded_ms, low_ms), high_ms)


def _check_fit(config: SearchConfig, table: LatencyTable, hardware: Hardware, where: str) -> None:
    try:
        check_fit(config, table, hardware)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _fields_without_effect(drafts: list[Draft]) -> list[str]:
    """Fields that are set and that no cell uses."""
    ineffective = [set(draft.config.ineffective_fields()) for draft in drafts]
    return sorted(set.intersection(*ineffective))


def _with_names(cells: Sequence[SearchCell]) -> list[SearchCell]:
    names = join_names([_parts_of_name(cell) for cell in cells])
    return [replace(cell, name=name) for cell, name in zip(cells, names, strict=True)]


def _parts_of_name(cell: SearchCell) -> dict[str, str]:
    """The settings that a name shows, by their fields."""
    config = cell.config
    ignored = METHODS[config.method].ignored_fields
    target = cell.target if isinstance(cell, UnmeasuredSearch) else config.target_latency_ms
    return {
        **({} if config.method == "tf_nas" else {"method": config.method}),
        **{field: getattr(config, field) for field in ("sampling", "depth") if field not in ignored},
        "target_latency_ms": f"T{target}" if isinstance(target, str) else f"T{target:g}",
        **{field: f"{field}={value}" for field, value in cell.factors.items() if field not in _NAMED_FIELDS},
        "seed": f"s{config.seed}",
    }
