"""Latency: elasticity-scaling phase by phase, and latency by epoch under each objective.

Shapes: N runs, P phases.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from analysis.figures.ink.curves import READING, draw_course, draw_epoch_axis, legend_below, stack_epochs
from analysis.figures.ink.drawing import Drawing, tabulate
from analysis.figures.ink.page import page
from analysis.figures.ink.panels import (
    arrange_panels,
    courses_of,
    drawn_runs,
    most_courses,
    panel_figure,
    title_panel,
)
from analysis.figures.ink.setting_styles import KNOWN_STYLES, pick_styles
from analysis.figures.ink.style import GRAY, LineStyle, new_figure
from analysis.measures.latency_error import TARGET, phase_names, scaling_walk_ms
from analysis.measures.published_networks import PUBLISHED_SCALING_MS, PUBLISHED_SCALING_TARGET_MS
from analysis.reading.captions import count, missing_note
from analysis.reading.experiment import Experiment
from analysis.reading.nothing_to_draw import NothingToDrawError, OutOfPlaceError, for_grids
from analysis.reading.run import Run

_OBJECTIVES = ("objective", "latency_weight", "objective_scale", "objective_exponent")
_COURSES = (*_OBJECTIVES[1:], "elasticity")
_TICKS = (-300, -100, -30, -10, -3, -1, 0, 1, 3, 10, 30, 100, 300)
_TARGET_DASHES = (0, (4, 2))


@dataclass(frozen=True)
class WalkCourse:
    """Runs whose elasticity-scaling had the same phases, so that a median is of the same runs throughout.

    Attributes:
        percent_NP: distance from the target after each phase, in percent of it.
    """

    label: str
    percent_NP: NDArray[np.float64]


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
    example = most_moved(runs, walks)
    courses = walk_courses(runs, walks)
    published = ", ".join(map(str, PUBLISHED_SCALING_MS))
    caption = (
        "Elasticity-scaling, in the last epoch that scaled widths. Left: latency of the derived network "
        f"after each phase, in the run whose latency moved most ({example.name}, {example.short_id}). Right: "
        "distance from the target in every run (thin), the median of the runs that have the same phases "
        f"(thick), and the published example (open, dashed: {published} ms for "
        f"{PUBLISHED_SCALING_TARGET_MS:g} ms; not measured here). n = "
        f"{count(len(runs), 'trial')}.{missing_note(experiment)}"
    )

    def draw() -> Figure:
        figure = new_figure(page().wide_in, 2.3)
        left, right = figure.subplots(1, 2)
        num_stages = len(example.space.stages)
        _draw_example(left, walks[example.run_id], example.number(TARGET), num_stages)
        _draw_all(right, courses, num_stages)
        return figure

    table = tabulate(experiment, runs, lambda run: _walk_rows(run, walks[run.run_id]))
    return [Drawing("elasticity", "Elasticity-scaling step by step", caption, runs, draw, table)]


def most_moved(runs: Sequence[Run], walks: Mapping[str, NDArray[np.float64]]) -> Run:
    """Returns the run whose latency moved most from phase to phase, in percent of its target."""
    return max(runs, key=lambda run: np.abs(np.diff(walks[run.run_id])).sum() / run.number(TARGET))


def walk_courses(runs: Sequence[Run], walks: Mapping[str, NDArray[np.float64]]) -> list[WalkCourse]:
    """Groups the runs by the number of their phases, those with the most of them first.

    Scaling ends early where the first phase cannot meet the target.
    """
    lengths = sorted({len(walks[run.run_id]) for run in runs}, reverse=True)
    courses = []
    for length in lengths:
        own = [run for run in runs if len(walks[run.run_id]) == length]
        percent_NP = np.stack([100 * (walks[run.run_id] / run.number(TARGET) - 1) for run in own])
        early = "" if length == lengths[0] else " whose target was out of reach"
        courses.append(WalkCourse(f"median of {count(len(own), 'run')}{early}", percent_NP))
    return courses


def _walk_rows(run: Run, walk_ms: np.ndarray) -> Iterator[dict[str, Any]]:
    """A row for each phase."""
    target_ms = run.number(TARGET)
    for phase, latency_ms in zip(phase_names(len(run.space.stages), len(walk_ms)), walk_ms, strict=True):
        distance = 100 * (latency_ms / target_ms - 1)
        yield {"phase": phase, "latency_ms": latency_ms, "distance_percent": distance}


def _draw_example(axes: Axes, walk_ms: NDArray[np.float64], target_ms: float, num_stages: int) -> None:
    style = KNOWN_STYLES["elasticity"][True]
    places = np.arange(len(walk_ms))
    axes.axhline(
        target_ms, color="black", lw=0.8, linestyle=_TARGET_DASHES, label=f"target {target_ms:.4g} ms"
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
    _name_phases(axes, phase_names(num_stages, len(walk_ms)), len(walk_ms))
    axes.set_ylabel("latency (ms)")
    axes.legend(loc="best")


def _draw_all(axes: Axes, courses: Sequence[WalkCourse], num_stages: int) -> None:
    axes.axhline(0, color="black", lw=0.8, linestyle=_TARGET_DASHES)
    published = 100 * (np.array(PUBLISHED_SCALING_MS) / PUBLISHED_SCALING_TARGET_MS - 1)
    for course, style in zip(courses, _course_styles(len(courses)), strict=True):
        axes.plot(course.percent_NP.T, color=style.color, lw=0.4, alpha=0.5)
        axes.plot(
            np.median(course.percent_NP, axis=0),
            color=style.color,
            linestyle=style.dashes,
            marker=style.marker,
            label=course.label,
        )
    axes.plot(
        published, color=GRAY, linestyle=(0, (2, 2)), marker="o", markerfacecolor="white", label="published"
    )
    axes.set_yscale("symlog", linthresh=1)
    low, high = axes.get_ylim()
    ticks = [tick for tick in _TICKS if low <= tick <= high]
    axes.set_yticks(ticks, [str(tick).replace("-", "−") for tick in ticks])
    axes.minorticks_off()
    axes.set_ylabel("distance from target (%)")
    longest = max(course.percent_NP.shape[1] for course in courses)
    _name_phases(axes, phase_names(num_stages, longest), max(longest, len(published)))
    axes.legend(loc="best")


def _course_styles(num_courses: int) -> list[LineStyle]:
    """Elastic widths have one color; runs that ended early are set apart from it."""
    lead = KNOWN_STYLES["elasticity"][True]
    return [lead, *pick_styles(map(str, range(1, num_courses)), [lead]).values()]


def _name_phases(axes: Axes, names: Sequence[str], num_places: int) -> None:
    # The published example has more phases than small spaces have stages.
    labels = [*names, *["more stages"] * (num_places - len(names))]
    axes.set_xticks(range(num_places), [name.replace(" ", "\n", 1) for name in labels])
    axes.set_xlim(-0.5, num_places - 0.5)


@for_grids
def objective_drawings(experiment: Experiment) -> list[Drawing]:
    """Draws derived latency by epoch, in a panel for each objective, with and without elasticity-scaling."""
    runs = tuple(run for run in experiment.runs if run.epochs is not None)
    if not runs:
        raise NothingToDrawError("no run with metrics.csv")
    if not any(field in experiment.factors for field in _OBJECTIVES):
        raise OutOfPlaceError("one objective, with one weight")
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
            axes.axhline(100, color="black", lw=0.8, linestyle=_TARGET_DASHES)
            for course in courses_of(experiment, panel, *_COURSES):
                epochs, latency_NE = stack_epochs(course.runs, "derived_latency_ms")
                percent_NE = 100 * latency_NE / _targets(course.runs)[:, None]
                draw_course(axes, epochs, percent_NE, course.style, f"{course.label}, n = {len(course.runs)}")
            draw_epoch_axis(axes, panel.runs)
            title_panel(axes, panel.title)
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
