"""Latency: elasticity-scaling phase by phase, and latency by epoch under each objective."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.ink.curves import READING, draw_course, draw_epoch_axis, legend_below, stack_epochs
from analysis.figures.ink.drawing import Drawing, tabulate
from analysis.figures.ink.panels import (
    arrange_panels,
    courses_of,
    drawn_runs,
    most_courses,
    panel_figure,
)
from analysis.figures.ink.style import GRAY, TWO_COLUMNS_IN, line_style, new_figure
from analysis.measures.latency_error import TARGET, phase_names, scaling_walk_ms
from analysis.measures.published_networks import PUBLISHED_SCALING_MS, PUBLISHED_SCALING_TARGET_MS
from analysis.reading.captions import count, missing_note
from analysis.reading.experiment import Experiment
from analysis.reading.nothing_to_draw import NothingToDrawError, for_grids
from analysis.reading.run import Run

_COURSES = ("latency_weight", "objective_scale", "objective_exponent", "elasticity")


@for_grids
def scaling_drawings(experiment: Experiment) -> list[Drawing]:
    """Draws latency after each phase of elasticity-scaling: of one run in ms, of all in percent."""
    walks = {
        run.run_id: walk
        for run in experiment.searched
        if run.trajectory is not None and len(walk := scaling_walk_ms(run.trajectory))
    }
    runs = tuple(run for run in experiment.searched if run.run_id in walks)
    if not runs:
        raise NothingToDrawError("no run with elasticity-scaling")
    # The run that began farthest from its target shows best what the phases do.
    example = max(runs, key=lambda run: abs(walks[run.run_id][0] / run.number(TARGET) - 1))
    published = ", ".join(map(str, PUBLISHED_SCALING_MS))
    caption = (
        "Elasticity-scaling, in the last epoch that scaled widths. Left: latency of the derived network "
        "after each phase, in the run that began farthest from its target "
        f"({example.name}, {example.short_id}). "
        "Right: distance from the target in every run (thin), their median (thick), and the published "
        f"example (open, dashed: {published} ms for {PUBLISHED_SCALING_TARGET_MS:g} ms; not measured "
        "here). n = "
        f"{count(len(runs), 'trial')}.{missing_note(experiment)}"
    )

    def draw() -> Figure:
        figure = new_figure(TWO_COLUMNS_IN, 2.3)
        left, right = figure.subplots(1, 2)
        num_stages = len(example.space.stages)
        _draw_example(left, walks[example.run_id], example.number(TARGET), num_stages)
        _draw_all(right, [walks[run.run_id] / run.number(TARGET) for run in runs], num_stages)
        return figure

    table = tabulate(experiment, runs, lambda run: _walk_rows(run, walks[run.run_id]))
    return [Drawing("elasticity", "Elasticity-scaling step by step", caption, runs, draw, table)]


def _walk_rows(run: Run, walk_ms: np.ndarray) -> Iterator[dict[str, Any]]:
    """A row for each phase."""
    target_ms = run.number(TARGET)
    for phase, latency_ms in zip(phase_names(len(run.space.stages), len(walk_ms)), walk_ms, strict=True):
        distance = 100 * (latency_ms / target_ms - 1)
        yield {"phase": phase, "latency_ms": latency_ms, "distance_percent": distance}


def _draw_example(axes: Axes, walk_ms: np.ndarray, target_ms: float, num_stages: int) -> None:
    style = line_style(1)
    places = np.arange(len(walk_ms))
    axes.axhline(target_ms, color="black", lw=0.8, linestyle=(0, (4, 2)))
    axes.annotate(
        f"target {target_ms:.4g} ms",
        (places[-1] + 0.4, target_ms),
        (0, 2),
        ha="right",
        textcoords="offset points",
        fontsize=6,
    )
    axes.plot(places, walk_ms, color=style.color, marker=style.marker)
    for place, value in zip(places, walk_ms, strict=True):
        above = value >= target_ms
        axes.annotate(
            f"{value:.4g}",
            (place, value),
            (0, 6 if above else -9),
            ha="center",
            textcoords="offset points",
            fontsize=6,
        )
    axes.margins(y=0.25)
    _name_phases(axes, phase_names(num_stages, len(walk_ms)))
    axes.set_ylabel("latency (ms)")


def _draw_all(axes: Axes, walks: Sequence[np.ndarray], num_stages: int) -> None:
    longest = max(map(len, walks))
    table = np.full((len(walks), longest), np.nan)
    for row, walk in zip(table, walks, strict=True):
        row[: len(walk)] = 100 * (walk - 1)
    axes.axhline(0, color="black", lw=0.8, linestyle=(0, (4, 2)))
    axes.plot(np.arange(longest), table.T, color=line_style(1).color, lw=0.4, alpha=0.5)
    axes.plot(
        np.nanmedian(table, axis=0), color=line_style(1).color, marker=line_style(1).marker, label="median"
    )
    published = 100 * (np.array(PUBLISHED_SCALING_MS) / PUBLISHED_SCALING_TARGET_MS - 1)
    axes.plot(
        published, color=GRAY, linestyle=(0, (2, 2)), marker="o", markerfacecolor="white", label="published"
    )
    axes.set_yscale("symlog", linthresh=1)
    axes.set_yticks(
        [-30, -10, -3, -1, 0, 1, 3, 10, 30], ["−30", "−10", "−3", "−1", "0", "1", "3", "10", "30"]
    )
    axes.minorticks_off()
    axes.set_ylabel("distance from target (%)")
    _name_phases(axes, phase_names(num_stages, longest))
    axes.legend(loc="best")


def _name_phases(axes: Axes, names: Sequence[str]) -> None:
    axes.set_xticks(range(len(names)), [name.replace(" ", "\n", 1) for name in names])
    axes.set_xlim(-0.5, len(names) - 0.5)


@for_grids
def objective_drawings(experiment: Experiment) -> list[Drawing]:
    """Draws derived latency by epoch, in a panel for each objective, with and without elasticity-scaling."""
    runs = tuple(run for run in experiment.runs if run.epochs is not None)
    if not runs:
        raise NothingToDrawError("no run with metrics.csv")
    panels, shown = arrange_panels(experiment, runs, *_COURSES)
    runs = drawn_runs(panels)
    caption = (
        "Latency of the derived network by epoch, in percent of its target (dashed line: the target), "
        "under each objective and weight of the latency term, with and without elasticity-scaling. "
        f"{READING} Gray: warm-up. n = {count(len(runs), 'trial')}.{shown}{missing_note(experiment)}"
    )

    def draw() -> Figure:
        figure, all_axes = panel_figure(len(panels), most_courses(experiment, panels, *_COURSES))
        for panel, axes in zip(panels, all_axes, strict=True):
            axes.axhline(100, color="black", lw=0.8, linestyle=(0, (4, 2)))
            for course in courses_of(experiment, panel, *_COURSES):
                epochs, latency_NE = stack_epochs(course.runs, "derived_latency_ms")
                percent_NE = 100 * latency_NE / _targets(course.runs)[:, None]
                draw_course(axes, epochs, percent_NE, course.index, f"{course.label}, n = {len(course.runs)}")
            draw_epoch_axis(axes, panel.runs)
            axes.set_title(panel.title, loc="left")
            axes.set_ylabel("latency (% of target)")
            legend_below(axes)
        return figure

    table = tabulate(experiment, runs, _latency_rows)
    return [Drawing("objectives", "Latency under each objective", caption, runs, draw, table)]


def _latency_rows(run: Run) -> Iterator[dict[str, Any]]:
    """A row for each epoch."""
    assert run.epochs is not None
    target_ms = run.number(TARGET)
    for epoch, latency_ms in run.epochs["derived_latency_ms"].items():
        percent = 100 * latency_ms / target_ms
        yield {"epoch": epoch, "derived_latency_ms": latency_ms, "percent_of_target": percent}


def _targets(runs: Sequence[Run]) -> np.ndarray:
    return np.array([run.number(TARGET) for run in runs])
