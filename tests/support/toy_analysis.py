"""What a plugin adds to analysis, as small as it can be: a measure, a claim, a figure and a table."""

from matplotlib.figure import Figure

from analysis.figures import FIGURES
from analysis.figures.ink.drawing import Drawing
from analysis.figures.ink.page import page
from analysis.figures.ink.style import new_figure
from analysis.measures import MEASURES
from analysis.measures.measure import Measure, Numbers
from analysis.reading.captions import count
from analysis.reading.experiment import Experiment
from analysis.reading.nothing_to_draw import NothingToDrawError, for_grids
from analysis.reading.run import Run
from analysis.tables import TABLES
from analysis.tables.result_table import Column, ResultTable
from analysis.verdicts import CLAIMS
from analysis.verdicts.claim import Claim


def compute_width(run: Run, experiment: Experiment) -> float:
    """The largest number of mid channels of the derived network."""
    if run.architecture is None:
        return float("nan")
    return float(max(width for _, _, width in run.architecture.layers))


MAX_WIDTH = Measure("max_width", "widest", "largest mid channels of the derived network", 0, compute_width)


@for_grids
def width_drawings(experiment: Experiment) -> list[Drawing]:
    runs = tuple(run for run in experiment.runs if run.architecture is not None)
    if not runs:
        raise NothingToDrawError("no run with architecture.json")
    widths = [compute_width(run, experiment) for run in runs]

    def draw() -> Figure:
        figure = new_figure(page().narrow_in, 2)
        axes = figure.subplots()
        axes.plot(widths, "o")
        axes.set_ylabel("widest layer (mid channels)")
        return figure

    caption = f"The widest layer of each derived network. n = {count(len(runs), 'trial')}."
    return [Drawing("width", "Width", caption, runs, draw)]


def width_table(experiment: Experiment, numbers: Numbers) -> ResultTable:
    columns = (Column("run", "run"), Column("max_width", "widest", 0))
    rows = tuple((run.name, numbers[run.run_id][MAX_WIDTH.name]) for run in experiment.runs)
    return ResultTable("width", "Widths", "The widest layer of each network.", columns, rows, experiment.runs)


def register() -> None:
    """What the module of an entry point does when it is imported."""
    MEASURES.register("max_width", "tests.support.toy_analysis:MAX_WIDTH")
    CLAIMS.register(
        "x",
        Claim(
            statement="Sink-connecting narrows the derived network.",
            measure="max_width",
            baseline={"depth": "skip"},
            treated={"depth": "sink"},
            direction="less",
            smallest_effect=1.0,
        ),
    )
    FIGURES.register("width", "tests.support.toy_analysis:width_drawings")
    TABLES.register("width", "tests.support.toy_analysis:width_table")
