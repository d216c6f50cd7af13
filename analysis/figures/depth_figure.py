"""Depth fluctuation: depth of the most probable network by epoch, skip compared with sink, with every seed.

Shapes: E epochs, N seeds.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.figures.ink.curves import READING, draw_course, draw_epoch_axis, legend_below
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
from analysis.figures.ink.style import line_style
from analysis.measures.depth import DepthCourse, measure_depth, most_probable_layers
from analysis.reading.captions import count, missing_note
from analysis.reading.experiment import Experiment
from analysis.reading.nothing_to_draw import for_grids
from analysis.reading.run import Run

FACTOR = "depth"


_END = (
    " Diamonds: depth of the derived network, where the search ends with a network in reach of its target "
    "instead of the most probable one."
)


@for_grids
def depth_drawings(experiment: Experiment) -> list[Drawing]:
    """Draws depth by epoch, in a panel for each setting of the other factors."""
    runs = experiment.searched_with("derived_op_EL")
    numbers = {run.run_id: measure_depth(run.trajectory) for run in runs if run.trajectory is not None}
    panels, shown = arrange_panels(experiment, runs, FACTOR)
    runs = drawn_runs(panels)
    caption = (
        "Depth fluctuation: number of searchable layers in the most probable network, by epoch. "
        f"{READING} Fluctuation: mean absolute change of a stage's depth from one joint epoch to the next, "
        "summed over stages, mean ± standard deviation over seeds. The axis begins at the smallest possible "
        "depth; a search that collapsed to it fluctuates little. Gray: warm-up, during which depth is not "
        f"searched.{_END if any(map(_ends_elsewhere, runs)) else ''} n = "
        f"{count(len(runs), 'trial')}.{shown}{missing_note(experiment)}"
    )

    def draw() -> Figure:
        figure, all_axes = panel_figure(len(panels), most_courses(experiment, panels, FACTOR))
        for panel, axes in zip(panels, all_axes, strict=True):
            _draw_panel(axes, panel, courses_of(experiment, panel, FACTOR), numbers)
        return figure

    table = tabulate(experiment, runs, lambda run: _rows(run, numbers[run.run_id]))
    return [Drawing("depth", "Depth fluctuation", caption, runs, draw, table)]


def _rows(run: Run, course: DepthCourse) -> Iterator[dict[str, Any]]:
    """A row for each joint epoch."""
    trajectory = run.trajectory
    assert trajectory is not None
    derived_E = (trajectory.derived_op_EL >= 0).sum(axis=1)
    for place in np.flatnonzero(trajectory.is_joint_E):
        yield {
            "epoch": trajectory.epoch_E[place],
            "most_probable_depth": course.depth_ES[place].sum(),
            "derived_depth": derived_E[place],
            "depth_fluctuation": course.fluctuation,
        }


def _draw_panel(axes: Axes, panel: Panel, courses: Sequence[Course], numbers: dict[str, DepthCourse]) -> None:
    for course in courses:
        trajectory = course.runs[0].trajectory
        assert trajectory is not None
        joint_E = trajectory.is_joint_E
        depth_NE = np.stack([numbers[run.run_id].depth_ES.sum(axis=1)[joint_E] for run in course.runs])
        label = f"{course.label}: {_summary(course, numbers)}"
        draw_course(axes, trajectory.epoch_E[joint_E], depth_NE, course.index, label)
        for run in filter(_ends_elsewhere, course.runs):
            _draw_end(axes, run, course.index)
    draw_epoch_axis(axes, panel.runs)
    axes.set_title(panel.title, loc="left")
    axes.set_ylabel("depth (layers)")
    space = panel.runs[0].space
    axes.set_ylim(sum(map(space.min_depth, range(len(space.stages)))) - 0.5, len(space.layers) + 0.5)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    legend_below(axes)


def _ends_elsewhere(run: Run) -> bool:
    """Whether a search derived another network in its last epoch than the most probable one."""
    assert run.trajectory is not None
    is_kept_L = run.trajectory.derived_op_EL[-1] >= 0
    return bool((is_kept_L != most_probable_layers(run.trajectory)[-1]).any())


def _draw_end(axes: Axes, run: Run, index: int) -> None:
    assert run.trajectory is not None
    depth = (run.trajectory.derived_op_EL[-1] >= 0).sum()
    color = line_style(index).color
    axes.plot(run.trajectory.epoch_E[-1], depth, "D", color=color, mfc="white", ms=5, zorder=4, clip_on=False)


def _summary(course: Course, numbers: dict[str, DepthCourse]) -> str:
    values = np.array([numbers[run.run_id].fluctuation for run in course.runs])
    if np.isnan(values).all():
        return f"fluctuation unknown, n = {len(values)}"
    spread = f" ± {values.std(ddof=1):.2f}" if len(values) > 1 else ""
    return f"fluctuation {values.mean():.2f}{spread}, n = {len(values)}"
