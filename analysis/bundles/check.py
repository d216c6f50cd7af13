"""A check of a bundle: values as stored and as recomputed, and which of them disagree."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_MAX_TEXT = 80


@dataclass(frozen=True)
class Disagreement:
    """A value that is not what it follows from.

    Attributes:
        where: the run, the table or the claim.
    """

    where: str
    quantity: str
    stored: str
    recomputed: str

    def __str__(self) -> str:
        return f"{self.where}: {self.quantity}: stored {self.stored}, recomputed {self.recomputed}"


@dataclass
class Check:
    """What was compared, and what disagrees.

    Attributes:
        num_compared: numbers and texts.
        notes: what was left out, and why.
    """

    title: str
    num_compared: int = 0
    disagreements: list[Disagreement] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def compare(self, where: str, quantity: str, stored: Any, recomputed: Any, tolerance: float = 0) -> None:
        """Compares two values of any kind, and counts the numbers and texts in them."""
        for place, one, other in _leaves(stored, recomputed):
            self.num_compared += 1
            if not _agree(one, other, tolerance):
                name = f"{quantity}{place}"
                self.disagreements.append(Disagreement(where, name, _show(one), _show(other)))

    def disagree(self, where: str, quantity: str, stored: str, recomputed: str) -> None:
        """Adds what cannot be compared."""
        self.num_compared += 1
        self.disagreements.append(Disagreement(where, quantity, stored, recomputed))


def _leaves(stored: Any, recomputed: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The numbers and texts of two values, in pairs, each with its place."""
    if isinstance(recomputed, np.ndarray) and np.shape(stored) == recomputed.shape:
        for index in np.ndindex(recomputed.shape):
            yield f"{place}[{', '.join(map(str, index))}]", np.asarray(stored)[index], recomputed[index]
    elif isinstance(stored, dict) and isinstance(recomputed, dict):
        for name in {**stored, **recomputed}:
            yield from _leaves(stored.get(name), recomputed.get(name), f"{place}.{name}")
    elif isinstance(stored, list) and isinstance(recomputed, list) and len(stored) == len(recomputed):
        for number, (one, other) in enumerate(zip(stored, recomputed, strict=True)):
            yield from _leaves(one, other, f"{place}[{number}]")
    else:
        yield place, stored, recomputed


def _agree(stored: Any, recomputed: Any, tolerance: float) -> bool:
    if isinstance(stored, float | np.floating) and isinstance(recomputed, float | np.floating | int):
        if math.isnan(stored) or math.isnan(recomputed):
            return math.isnan(stored) and math.isnan(recomputed)
        return math.isclose(stored, recomputed, rel_tol=tolerance, abs_tol=tolerance * 1e-3)
    # Arrays come here only if their shapes differ.
    is_array = isinstance(stored, np.ndarray) or isinstance(recomputed, np.ndarray)
    return not is_array and bool(stored == recomputed)


def _show(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}..."
