"""Learning curves of the searches."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.ink.curves import READING, draw_course, draw_epoch_axis, stack_epochs
from analysis.figures.ink.drawing import Drawing, tabulate
from analysis.figures.ink.panels import (
    Course,
    Panel,
    arrange_panels,
    courses_of,
    drawn_runs,
    most_courses,
    panel_figure,
    title_panel,
)
from analysis.figures.ink.style import STYLE, fit_lines, text_width_in, write_in
from analysis.reading.captions import count, missing_note
from analysis.reading.experiment import Experiment
from analysis.reading.nothing_to_draw import NothingToDrawError, for_grids
from analysis.reading.run import Run

_HANDLE_IN = 0.6
"""Width of a line in the legend, with the gaps beside it."""
_COURSES = ("sampling", "depth", "method")
_LAYOUT: Any = {"axes_per_panel": 2, "has_one_legend": True}
_METRICS = {"val_accuracy": "held-out accuracy", "train_loss": "training loss"}


@for_grids
def learning_drawings(experiment: Experiment) -> list[Drawing]:
    """Draws held-out accuracy and training loss by epoch."""
    runs = tuple(run for run in experiment.runs if run.epochs is not None)
    if not runs:
        raise NothingToDrawError("no run with metrics.csv")
    panels, shown = arrange_panels(experiment, runs, *_COURSES, max_panels=4, **_LAYOUT)
    runs = drawn_runs(panels)
    caption = (
        "Learning curves of the searches: accuracy on held-out images, and training loss of the first path "
        f"where the method trains a supernet. {READING} Gray: warm-up. n = "
        f"{count(len(runs), 'trial')}.{shown}{missing_note(experiment)}"
    )

    def draw() -> Figure:
        figure, all_axes = panel_figure(len(panels), most_courses(experiment, panels, *_COURSES), **_LAYOUT)
        places = iter(all_axes)
        for panel in panels:
            for metric, label in _METRICS.items():
                axes = next(places)
                _draw_panel(axes, panel, courses_of(experiment, panel, *_COURSES), metric)
                axes.set_ylabel(label)
        _draw_legend(figure, _count_seeds(experiment, panels))
        return figure

    table = tabulate(experiment, runs, _rows)
    return [Drawing("learning", "Learning curves", caption, runs, draw, table)]


def _rows(run: Run) -> Iterator[dict[str, Any]]:
    """A row for each epoch."""
    assert run.epochs is not None
    for epoch, row in run.epochs.reindex(columns=list(_METRICS)).iterrows():
        yield {"epoch": epoch, **row}


def _draw_panel(axes: Axes, panel: Panel, courses: Sequence[Course], metric: str) -> None:
    title_panel(axes, panel.title)
    num_drawn = 0
    for course in courses:
        runs = _runs_with(metric, course)
        if runs:
            epochs, values_NE = stack_epochs(runs, metric)
            draw_course(axes, epochs, values_NE, course.style, course.label)
        num_drawn += len(runs)
    if not num_drawn:
        write_in(axes, "these methods have none")
        return
    draw_epoch_axis(axes, panel.runs)


def _runs_with(metric: str, course: Course) -> list[Run]:
    return [run for run in course.runs if run.epochs is not None and metric in run.epochs]


def _count_seeds(experiment: Experiment, panels: Sequence[Panel]) -> dict[str, str]:
    """Of how many seeds the lines of a setting are: `12`, or `11 to 12` if panels differ."""
    counts: dict[str, set[int]] = {}
    for panel, metric in itertools.product(panels, _METRICS):
        for course in courses_of(experiment, panel, *_COURSES):
            counts.setdefault(course.label, set()).add(len(_runs_with(metric, course)))
    found = {label: sorted(numbers - {0}) for label, numbers in counts.items()}
    return {
        label: " to ".join(map(str, dict.fromkeys((some[0], some[-1]))))
        for label, some in found.items()
        if some
    }


def _draw_legend(figure: Figure, seeds: dict[str, str]) -> None:
    """Draws one legend below all panels, in as many columns as fit."""
    entries = {
        f"{label}, n = {seeds[label]}": handle
        for axes in figure.axes
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    width_in, size_pt = figure.get_size_inches()[0], STYLE["legend.fontsize"]
    widest_in = max(text_width_in(label, size_pt) for label in entries)
    labels = ["\n".join(fit_lines(label, width_in - _HANDLE_IN, size_pt)) for label in entries]
    num_columns = max(1, int(width_in // (widest_in + _HANDLE_IN)))
    figure.legend(entries.values(), labels, loc="outside lower center", ncols=num_columns, handlelength=3.2)
