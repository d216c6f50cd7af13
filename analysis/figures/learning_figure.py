"""Learning curves of the searches."""

from collections.abc import Iterator, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.ink.curves import READING, draw_course, draw_epoch_axis, legend_below, stack_epochs
from analysis.figures.ink.drawing import Drawing, tabulate
from analysis.figures.ink.panels import (
    Course,
    Panel,
    arrange_panels,
    courses_of,
    drawn_runs,
    most_courses,
    panel_figure,
)
from analysis.figures.ink.style import write_in
from analysis.reading.captions import count, missing_note
from analysis.reading.experiment import Experiment
from analysis.reading.nothing_to_draw import NothingToDrawError, for_grids
from analysis.reading.run import Run

_COURSES = ("sampling", "depth", "method")
_METRICS = {"val_accuracy": "held-out accuracy", "train_loss": "training loss"}


@for_grids
def learning_drawings(experiment: Experiment) -> list[Drawing]:
    """Draws held-out accuracy and training loss by epoch."""
    runs = tuple(run for run in experiment.runs if run.epochs is not None)
    if not runs:
        raise NothingToDrawError("no run with metrics.csv")
    panels, shown = arrange_panels(experiment, runs, *_COURSES, max_panels=4)
    runs = drawn_runs(panels)
    caption = (
        "Learning curves of the searches: accuracy on held-out images, and training loss of the first path "
        f"where the method trains a supernet. {READING} Gray: warm-up. n = "
        f"{count(len(runs), 'trial')}.{shown}{missing_note(experiment)}"
    )

    def draw() -> Figure:
        figure, all_axes = panel_figure(
            2 * len(panels), most_courses(experiment, panels, *_COURSES), max_columns=2
        )
        places = iter(all_axes)
        for panel in panels:
            for metric, label in _METRICS.items():
                axes = next(places)
                _draw_panel(axes, panel, courses_of(experiment, panel, *_COURSES), metric)
                axes.set_ylabel(label)
        return figure

    table = tabulate(experiment, runs, _rows)
    return [Drawing("learning", "Learning curves", caption, runs, draw, table)]


def _rows(run: Run) -> Iterator[dict[str, Any]]:
    """A row for each epoch."""
    assert run.epochs is not None
    for epoch, row in run.epochs.reindex(columns=list(_METRICS)).iterrows():
        yield {"epoch": epoch, **row}


def _draw_panel(axes: Axes, panel: Panel, courses: Sequence[Course], metric: str) -> None:
    axes.set_title(panel.title, loc="left")
    num_drawn = 0
    for course in courses:
        runs = [run for run in course.runs if run.epochs is not None and metric in run.epochs]
        if runs:
            epochs, values_NE = stack_epochs(runs, metric)
            draw_course(axes, epochs, values_NE, course.index, f"{course.label}, n = {len(runs)}")
        num_drawn += len(runs)
    if not num_drawn:
        write_in(axes, "these methods have none")
        return
    draw_epoch_axis(axes, panel.runs)
    legend_below(axes)
