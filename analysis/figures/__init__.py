"""Ink: draws what the numbers say."""

from collections.abc import Callable

from analysis.drawing import Drawing, NothingToDrawError
from analysis.figures.collapse import collapse_drawings
from analysis.figures.depth import depth_drawings
from analysis.runs import Experiment

FIGURES: dict[str, Callable[[Experiment], list[Drawing]]] = {
    "operator collapse": collapse_drawings,
    "depth fluctuation": depth_drawings,
}


def make_drawings(experiment: Experiment) -> tuple[list[Drawing], list[str]]:
    """All figures that an experiment supports; and for each other one what is missing for it."""
    drawings: list[Drawing] = []
    undrawn: list[str] = []
    for title, make in FIGURES.items():
        try:
            drawings += make(experiment)
        except NothingToDrawError as missing:
            undrawn.append(f"{title}: not drawn: {missing}")
    return drawings, undrawn
