"""A figure before it is ink: what it says, from which runs, and how to draw it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from matplotlib.figure import Figure

from analysis.reading.experiment import Run

_MAX_IDS = 8


class NothingToDrawError(Exception):
    """The experiment lacks what a figure or table needs; the message says what."""


@dataclass(frozen=True)
class Drawing:
    """A figure whose numbers are known and whose ink is not yet spent.

    Attributes:
        name: the stem of its files.
        caption: what it shows, with n; run ids are added when it is written.
        runs: those whose numbers it shows.
        draw: draws it.
    """

    name: str
    title: str
    caption: str
    runs: tuple[Run, ...]
    draw: Callable[[], Figure]

    @property
    def full_caption(self) -> str:
        """The caption with the runs' ids."""
        return f"{self.caption} {name_runs(self.runs)}"


def name_runs(runs: Iterable[Run]) -> str:
    """`Runs: 1a2b3c4d, ...`, the first few of them."""
    ids = [run.short_id for run in runs]
    more = f" and {len(ids) - _MAX_IDS} more (listed in the JSON file)" if len(ids) > _MAX_IDS else ""
    return f"Runs: {', '.join(ids[:_MAX_IDS])}{more}."


def count(number: int, noun: str) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
