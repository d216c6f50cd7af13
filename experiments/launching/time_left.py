"""How long a launch still takes, from what its epochs took so far."""

import math
from collections import defaultdict
from collections.abc import Collection, Sequence
from statistics import mean, median

from experiments.cells.cell import Cell

_TYPICAL_COST = {"warmup": 1.0, "joint": 2.5, "evaluation": 1.0}
"""Costs of epochs relative to each other, for phases that no cell has reached yet."""


class EpochTimes:
    """Seconds per epoch, by kind of cell and phase."""

    def __init__(self) -> None:
        self._seconds: defaultdict[tuple[str, str], list[float]] = defaultdict(list)

    def add(self, cell: Cell, epoch: int, seconds: float) -> None:
        """Counts an epoch; the first one is 1."""
        self._seconds[cell.cost_key, cell.phases[epoch - 1]].append(seconds)

    def epochs_s(self, cell: Cell, phases: Sequence[str]) -> float:
        """Estimated seconds of epochs in these phases; NaN before anything is known."""
        return math.fsum(self._epoch_s(cell, phase) for phase in phases)

    def _epoch_s(self, cell: Cell, phase: str) -> float:
        """By epochs of the same kind and phase; else by those of the same phase; else by any."""
        if own := self._seconds.get((cell.cost_key, phase)):
            return median(own)
        same_phase = [median(seconds) for (_, one), seconds in self._seconds.items() if one == phase]
        if same_phase:
            return mean(same_phase)
        relative = [median(seconds) / _cost(one) for (_, one), seconds in self._seconds.items()]
        return mean(relative) * _cost(phase) if relative else math.nan


def left_phases(cell: Cell, num_epochs: int, warm: Collection[str]) -> list[str]:
    """The phases of the epochs that are left of a cell.

    Args:
        num_epochs: epochs that are done.
        warm: warm-ups that it can take from another cell.
    """
    left = list(cell.phases[num_epochs:])
    return [phase for phase in left if phase != "warmup"] if not num_epochs and cell.warmup in warm else left


def wall_time_s(cells_s: Sequence[float], num_parallel: int) -> float:
    """Seconds until all cells are done, so many at a time: no less than the longest one takes."""
    return max(math.fsum(cells_s) / num_parallel, max(cells_s)) if cells_s else 0.0


def _cost(phase: str) -> float:
    # Trainings have a phase of their own, and no other.
    return _TYPICAL_COST.get(phase, 1.0)
