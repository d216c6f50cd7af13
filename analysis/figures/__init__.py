"""Figures: numbers first, then ink."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from analysis.reading.nothing_to_draw import NothingToDrawError, OutOfPlaceError
from nas.foundation.registry import Registry

if TYPE_CHECKING:
    from analysis.figures.ink.drawing import Drawing
    from analysis.reading.experiment import Experiment

FIGURES: "Registry[Callable[[Experiment], list[Drawing]]]" = Registry(
    "figure",
    {
        "operator collapse": "analysis.figures.collapse_figure:collapse_drawings",
        "depth fluctuation": "analysis.figures.depth_figure:depth_drawings",
        "redundancy": "analysis.figures.redundancy_figure:redundancy_drawings",
        "elasticity-scaling": "analysis.figures.latency_figure:scaling_drawings",
        "latency under each objective": "analysis.figures.latency_figure:objective_drawings",
        "accuracy against latency": "analysis.figures.tradeoff_figure:tradeoff_drawings",
        "space and derived networks": "analysis.figures.networks_figure:network_drawings",
        "learning curves": "analysis.figures.learning_figure:learning_drawings",
        "best network so far": "analysis.figures.evaluations_figure:best_drawings",
        "prediction and evaluation": "analysis.figures.evaluations_figure:prediction_drawings",
        "regret by epoch": "analysis.figures.oracle_figure:regret_drawings",
        "study": "analysis.figures.study_figure:study_drawings",
    },
)
"""Figures by title: each computes its numbers from an experiment and returns drawings, not yet drawn.

To add one, write `def my_drawings(experiment: Experiment) -> list[Drawing]` and register it with
`FIGURES.register("title", "my_module:my_drawings")`; decorate it with `for_grids` if it compares settings.
"""


def make_drawings(experiment: "Experiment") -> tuple[list["Drawing"], list[str]]:
    """Makes all figures that an experiment supports, and names what each of the others lacks."""
    drawings: list[Drawing] = []
    missing: list[str] = []
    for title, make in FIGURES.items():
        try:
            drawings += make(experiment)
        except OutOfPlaceError:
            continue
        except NothingToDrawError as reason:
            missing.append(f"{title}: not drawn: {reason}")
    return drawings, missing
