"""Ink: draws what the numbers say."""

from collections.abc import Callable

from analysis.drawing import Drawing, NothingToDrawError
from analysis.experiment import Experiment
from analysis.figures.collapse import collapse_drawings
from analysis.figures.depth import depth_drawings
from analysis.figures.latency import objective_drawings, scaling_drawings
from analysis.figures.learning import learning_drawings
from analysis.figures.networks import network_drawings
from analysis.figures.redundancy import redundancy_drawings
from analysis.figures.study import study_drawings
from analysis.figures.tradeoff import tradeoff_drawings

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
