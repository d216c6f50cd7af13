"""Names of the cells of a grid: what sets them apart comes first, since tables cut long names."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from experiments.cells.cell import Cell

AnyCell = TypeVar("AnyCell", bound="Cell")

_NUM_SHOWN = 16
"""Characters of a name that MLflow's table of runs shows where it is narrow."""

_EARLIER_TRAINING = re.compile(r"train-(.+)-s(\d+)")


def join_names(all_parts: Sequence[Mapping[str, str]], first: str = "") -> list[str]:
    """Joins the parts of each name: those in which the cells differ come before those that all share.

    The first order of these two whose names stay apart when they are cut: as given; short parts first.

    Args:
        all_parts: parts of each cell by field, in the order in which they read best.
        first: a field that comes first in any case.
    """
    fields = dict.fromkeys(field for parts in all_parts for field in parts)
    varying = [field for field in fields if len({parts.get(field) for parts in all_parts}) > 1]
    shared = [field for field in fields if field not in varying]

    def longest(field: str) -> int:
        return max(len(parts.get(field, "")) for parts in all_parts)

    names: list[str] = []
    for order in (varying, sorted(varying, key=longest)):
        ordered = dict.fromkeys([*([first] if first else []), *order, *shared])
        candidates = ["-".join(parts[field] for field in ordered if field in parts) for parts in all_parts]
        if not names or _num_apart(candidates) > _num_apart(names):
            names = candidates
    return names


def as_named(cell: AnyCell, name: str) -> AnyCell:
    """The cell with a name that it had before, unless that has other parts."""
    return replace(cell, name=name) if same_parts(name, cell.name) else cell


def same_parts(name: str, other: str) -> bool:
    """Whether two names have the same parts: earlier versions joined them in another order."""
    return sorted_parts(name) == sorted_parts(other)


def sorted_parts(name: str) -> tuple[str, ...]:
    """The parts of a name, whatever their order."""
    if earlier := _EARLIER_TRAINING.fullmatch(name):
        name = f"t{earlier[2]}-{earlier[1]}"
    return tuple(sorted(name.split("-")))


def _num_apart(names: Iterable[str]) -> int:
    return len({name[:_NUM_SHOWN] for name in names})
