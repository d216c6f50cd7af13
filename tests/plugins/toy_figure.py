"""A figure: the widest layer of each derived network."""

from matplotlib.figure import Figure

from analysis.figures import FIGURES
from analysis.figures.ink.drawing import Drawing, tabulate
from analysis.figures.ink.page import page
from analysis.figures.ink.style import new_figure
from analysis.reading.experiment import Experiment
from analysis.reading.nothing_to_draw import NothingToDrawError
from analysis.reading.run import Run


def width_drawings(experiment: Experiment) -> list[Drawing]:
    """Numbers first, then a function that draws them."""
    runs = tuple(run for run in experiment.runs if run.architecture is not None)
    if not runs:
        raise NothingToDrawError("no run with architecture.json")
    numbers = tabulate(experiment, runs, lambda run: [{"widest": find_widest(run)}])

    def draw() -> Figure:
        figure = new_figure(page().narrow_in, 2)
        axes = figure.subplots()
        axes.plot(numbers["widest"], "o")
        axes.set_ylabel("widest layer (mid channels)")
        return figure

    return [Drawing("width", "Width", "The widest layer of each derived network.", runs, draw, numbers)]


def find_widest(run: Run) -> int:
    """Mid channels of the widest layer."""
    assert run.architecture is not None
    return max(width for *_, width in run.architecture.layers)


FIGURES.register("widest layer", width_drawings)
