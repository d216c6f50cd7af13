"""A figure before it is drawn: its caption, its runs, and how to draw it."""

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

from analysis.reading.captions import name_runs
from analysis.reading.run import Run


@dataclass(frozen=True)
class Drawing:
    """A figure whose numbers are known and that is not drawn yet.

    Attributes:
        name: the stem of its files.
        caption: what it shows, with n; ids of runs are added when it is written.
        runs: the runs whose numbers it shows.
        draw: draws it.
    """

    name: str
    title: str
    caption: str
    runs: tuple[Run, ...]
    draw: Callable[[], Figure]

    @property
    def full_caption(self) -> str:
        """The caption with the ids of the runs."""
        return f"{self.caption} {name_runs(self.runs)}"
