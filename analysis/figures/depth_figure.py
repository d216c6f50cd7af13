"""Depth fluctuation: depth of the most probable network by epoch, skip compared with sink, with every seed.

Shapes: E epochs, N seeds.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import offset_copy

from analysis.figures.ink.curves import MIN_SEEDS_OF_BAND, READING, draw_course, draw_epoch_axis, legend_below
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
from analysis.figures.ink.style import LineStyle
from analysis.measures.depth import DepthCourse, measure_depth, most_probable_layers
from analysis.reading.captions import count, left_out_note, missing_note
from analysis.reading.experiment import Experiment
from analysis.reading.nothing_to_draw import NothingToDrawError, for_grids
from analysis.reading.run import Run

FACTOR = "depth"
_DIAMOND_PT = 4.5

_END = (
    " Diamonds: depth of the derived network, where the search ends with a network in reach of its target "
    "instead of the most probable one."
)


@for_grids
def depth_drawings(experiment: Experiment) -> list[Drawing]:
    """Draws depth by epoch, in a panel for each setting of the other factors."""
    found = experiment.searched_with("derived_op_EL")
    runs = tuple(run for run in found if run.trajectory is not None and run.trajectory.is_joint_E.any())
    if not runs:
        raise NothingToDrawError("no run with joint epochs")
    others = left_out_note(found, runs, "whose method searches nothing epoch by epoch")
    numbers = {run.run_id: measure_depth(run.trajectory) for run in runs if run.trajectory is not None}
    panels, shown = arrange_panels(experiment, runs, FACTOR)
    runs = drawn_runs(panels)
    caption = (
        f"Depth fluctuation: number of searchable layers in the most probable network, by epoch. {READING} "
        "Fluctuation: mean absolute change of a stage's depth from one joint epoch to the next, summed over "
        "stages, mean ± standard deviation over seeds. The axis begins at the smallest possible depth; a "
        "search that collapsed to it fluctuates little. Gray: warm-up, not to scale, during which depth is "
        f"not searched.{_END if any(map(_ends_elsewhere, runs)) else ''} n = "
        f"{count(len(runs), 'trial')}.{shown}{others}{missing_note(experiment)}"
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
    for place, course in enumerate(courses):
        trajectory = course.runs[0].trajectory
        assert trajectory is not None
        joint_E = trajectory.is_joint_E
        depth_NE = np.stack([numbers[run.run_id].depth_ES.sum(axis=1)[joint_E] for run in course.runs])
        label = f"{course.label}: {_summary(course, numbers)}"
        draw_course(axes, trajectory.epoch_E[joint_E], depth_NE, course.style, label)
        for run in filter(_ends_elsewhere, course.runs):
            _draw_end(axes, run, course.style, place)
    draw_epoch_axis(axes, panel.runs, is_narrow=True)
    title_panel(axes, panel.title)
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


def _draw_end(axes: Axes, run: Run, style: LineStyle, place: int) -> None:
    """Draws where a search ends, beside the ends of the lines before, which it would hide."""
    assert run.trajectory is not None
    beside = offset_copy(
        axes.transData, axes.get_figure(root=True), x=1.5 * _DIAMOND_PT * place, units="points"
    )
    depth = (run.trajectory.derived_op_EL[-1] >= 0).sum()
    axes.plot(
        run.trajectory.epoch_E[-1],
        depth,
        "D",
        color=style.color,
        mfc="white",
        ms=_DIAMOND_PT,
        zorder=4,
        clip_on=False,
        transform=beside,
    )


def _summary(course: Course, numbers: dict[str, DepthCourse]) -> str:
    values = np.array([numbers[run.run_id].fluctuation for run in course.runs])
    if np.isnan(values).all():
        return f"fluctuation unknown, n = {len(values)}"
    spread = f" ± {values.std(ddof=1):.2f}" if len(values) >= MIN_SEEDS_OF_BAND else ""
    return f"fluctuation {values.mean():.2f}{spread}, n = {len(values)}"
