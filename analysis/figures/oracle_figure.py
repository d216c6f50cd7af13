"""Regret by epoch: how far the network that would be derived is from the best one that meets the target.

Shapes: E epochs, N seeds.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.ink.curves import READING, draw_course, draw_epoch_axis, epochs_of, legend_below
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
from analysis.measures.oracle_regret import oracle_of, regret_by_epoch
from analysis.reading.captions import count, missing_note
from analysis.reading.experiment import Experiment
from analysis.reading.nothing_to_draw import OutOfPlaceError, for_grids
from analysis.reading.run import Run

_COURSES = ("method", "sampling", "depth")


@for_grids
def regret_drawings(experiment: Experiment) -> list[Drawing]:
    """Draws the regret by epoch, a line for each method, sampling and depth space."""
    runs = tuple(run for run in experiment.searched_with("derived_op_EL") if oracle_of(run) is not None)
    if not runs or experiment.table is None:
        raise OutOfPlaceError("no search without elasticity in a space that has an oracle")
    panels, shown = arrange_panels(experiment, runs, *_COURSES, max_panels=6)
    runs = drawn_runs(panels)
    caption = (
        "Regret by epoch: by how many points the best network that meets the target is more accurate than "
        f"the one that would be derived, both trained from scratch (see docs/oracle.md). {READING} A "
        "line begins once its method searches architectures; gray: none does yet. n = "
        f"{count(len(runs), 'trial')}.{shown}{missing_note(experiment)}"
    )

    def draw() -> Figure:
        figure, all_axes = panel_figure(len(panels), most_courses(experiment, panels, *_COURSES))
        for panel, axes in zip(panels, all_axes, strict=True):
            _draw_panel(axes, experiment, panel, courses_of(experiment, panel, *_COURSES))
        return figure

    table = tabulate(experiment, runs, lambda run: _rows(run, experiment))
    return [Drawing("regret", "Regret by epoch", caption, runs, draw, table)]


def _rows(run: Run, experiment: Experiment) -> Iterator[dict[str, Any]]:
    """A row for each epoch in which the method searches architectures."""
    first = epochs_of(run)[0]
    for epoch, points in enumerate(100 * regret_by_epoch(run, experiment), start=1):
        if epoch > first:
            yield {"epoch": epoch, "regret_points": points}


def _draw_panel(axes: Axes, experiment: Experiment, panel: Panel, courses: Sequence[Course]) -> None:
    for course in courses:
        rows = [100 * regret_by_epoch(run, experiment) for run in course.runs]
        first = max(epochs_of(run)[0] for run in course.runs)
        epochs = np.arange(first + 1, min(map(len, rows)) + 1)
        regret_NE = np.stack([row[epochs - 1] for row in rows])
        draw_course(axes, epochs, regret_NE, course.index, f"{course.label}, n = {len(rows)}")
    draw_epoch_axis(axes, panel.runs)
    axes.set_ylim(bottom=0)
    axes.set_title(panel.title, loc="left")
    axes.set_ylabel("regret (points)")
    legend_below(axes)
