"""Ink: draws what the numbers say."""

from collections.abc import Callable

from analysis.figures.collapse_figure import collapse_drawings
from analysis.figures.depth_figure import depth_drawings
from analysis.figures.ink.drawing import Drawing, NothingToDrawError
from analysis.figures.latency_figure import objective_drawings, scaling_drawings
from analysis.figures.learning_figure import learning_drawings
from analysis.figures.networks_figure import network_drawings
from analysis.figures.redundancy_figure import redundancy_drawings
from analysis.figures.study_figure import study_drawings
from analysis.figures.tradeoff_figure import tradeoff_drawings
from analysis.reading.experiment import Experiment

FIGURES: dict[str, Callable[[Experiment], list[Drawing]]] = {
    "operator collapse": collapse_drawings,
    "depth fluctuation": depth_drawings,
    "redundancy": redundancy_drawings,
    "elasticity-scaling": scaling_drawings,
    "latency under each objective": objective_drawings,
    "accuracy against latency": tradeoff_drawings,
    "space and derived networks": network_drawings,
    "learning curves": learning_drawings,
    "study": study_drawings,
}


def make_drawings(experiment: Experiment) -> tuple[list[Drawing], list[str]]:
    """All figures that an experiment supports; and for each other one what is missing for it.

    Of a study only its own: no two of its points are alike but in one thing, as the other figures need.
    """
    drawings: list[Drawing] = []
    undrawn: list[str] = []
    for title, make in ({"study": study_drawings} if experiment.is_study else FIGURES).items():
        try:
            drawings += make(experiment)
        except NothingToDrawError as missing:
            undrawn.append(f"{title}: not drawn: {missing}")
    return drawings, undrawn
