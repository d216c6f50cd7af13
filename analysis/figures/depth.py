"""Depth fluctuation: derived depth by epoch, skip against sink, with every seed.

Shapes: E epochs, N seeds.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.depth import DepthCourse, measure_depth
from analysis.drawing import Drawing, NothingToDrawError, count
from analysis.figures.panels import Panel, arrange_panels, courses_of, panel_figure
from analysis.runs import Experiment, Run
from analysis.style import line_style, mark_warmup
from analysis.values import show_value

FACTOR = "depth"


def depth_drawings(experiment: Experiment) -> list[Drawing]:
    """Derived depth by epoch, a panel for each setting of the other factors."""
    runs = experiment.searched
    if not runs:
        raise NothingToDrawError("no run with a trajectory")
    numbers = {run.run_id: measure_depth(run.trajectory) for run in runs if run.trajectory is not None}
    panels, shown = arrange_panels(experiment, runs, FACTOR)
    num_missing = len(experiment.missing)
    missing = (
        f" Missing: {count(num_missing, 'trial')} ({', '.join(r.name for r in experiment.missing[:4])})."
    )
    caption = (
        "Depth fluctuation: number of searchable layers that the derived network keeps, by epoch. Thin: each "
        "seed; thick: their mean; band: one standard deviation. Fluctuation: mean absolute change from one "
        "joint epoch to the next, mean ± standard deviation over seeds. Grey: warm-up, before depth "
        f"is searched. n = {count(len(runs), 'trial')}.{shown}{missing if num_missing else ''}"
    )
    return [
        Drawing(
            name="depth",
            title="Depth fluctuation",
            caption=caption,
            runs=tuple(runs),
            draw=lambda: _draw(experiment, panels, numbers),
        )
    ]


def _draw(experiment: Experiment, panels: Sequence[Panel], numbers: dict[str, DepthCourse]) -> Figure:
    figure, all_axes = panel_figure(len(panels), height_in=2.1)
    for panel, axes in zip(panels, all_axes, strict=True):
        _draw_panel(axes, panel, numbers)
    return figure


def _draw_panel(axes: Axes, panel: Panel, numbers: dict[str, DepthCourse]) -> None:
    first = panel.runs[0]
    assert first.trajectory is not None
    mark_warmup(axes, int((~first.trajectory.is_joint_E).sum()))
    axes.set_xlim(0.5, len(first.trajectory.epoch_E) + 0.5)
    for index, (value, runs) in enumerate(courses_of(panel.runs, FACTOR)):
        label = f"{show_value(FACTOR, value)}: {_summary(runs, numbers)}"
        _draw_course(axes, runs, numbers, index, label)
    axes.set_title(panel.title, loc="left")
    axes.set_xlabel("epoch")
    axes.set_ylabel("derived depth (layers)")
    space = first.space
    axes.set_ylim(sum(map(space.min_depth, range(len(space.stages)))) - 0.5, len(space.layers) + 0.5)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.24), ncols=1, handlelength=3)


def _draw_course(
    axes: Axes, runs: Sequence[Run], numbers: dict[str, DepthCourse], index: int, label: str
) -> None:
    style = line_style(index)
    trajectory = runs[0].trajectory
    assert trajectory is not None
    joint_E = trajectory.is_joint_E
    epochs = trajectory.epoch_E[joint_E]
    depth_NE = np.stack([numbers[run.run_id].depth_ES.sum(axis=1)[joint_E] for run in runs])
    mean_E, spread_E = depth_NE.mean(axis=0), depth_NE.std(axis=0, ddof=1 if len(runs) > 1 else 0)
    for depth_E in depth_NE:
        axes.plot(epochs, depth_E, color=style.color, lw=0.5, alpha=0.6, linestyle=style.dashes)
    if len(runs) > 1:
        axes.fill_between(epochs, mean_E - spread_E, mean_E + spread_E, color=style.color, alpha=0.15, lw=0)
    axes.plot(
        epochs,
        mean_E,
        color=style.color,
        linestyle=style.dashes,
        marker=style.marker,
        markevery=max(1, len(epochs) // 12),
        markeredgecolor="white",
        markeredgewidth=0.4,
        label=label,
    )


def _summary(runs: Sequence[Run], numbers: dict[str, DepthCourse]) -> str:
    values = np.array([numbers[run.run_id].fluctuation for run in runs])
    if np.isnan(values).all():
        return f"fluctuation unknown, n = {len(runs)}"
    spread = f" ± {values.std(ddof=1):.2f}" if len(values) > 1 else ""
    return f"fluctuation {values.mean():.2f}{spread}, n = {len(runs)}"
