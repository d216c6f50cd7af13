"""Small multiples: one panel per setting of some factors, one line per setting of the others."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.ink.page import page
from analysis.figures.ink.setting_styles import setting_styles
from analysis.figures.ink.style import (
    STYLE,
    LineStyle,
    fit_lines,
    new_figure,
)
from analysis.reading.experiment import Experiment
from analysis.reading.run import Run

MAX_PANELS = 9
_PANEL_IN = 2.0
"""A panel is not narrower than this."""
_AXES_IN, _ENTRY_IN = 1.55, 0.135
"""Height of a panel without its legend, and of an entry of the legend."""
_LABELS_IN = 0.5
"""Width of the labels of a vertical axis."""
WHOLE_METHOD = {
    "method": "tf_nas",
    "sampling": "bi_random",
    "depth": "sink",
    "elasticity": True,
    "objective": "tfnas",
    "latency_weight": 0.1,
}
"""The published search, as the defaults of its config; written out, since reading them would import torch."""


@dataclass(frozen=True)
class Panel:
    """Runs that agree in all factors except those that distinguish lines."""

    title: str
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Course:
    """The runs of one line, which differ only in the seed.

    Attributes:
        style: that of its setting in all figures.
    """

    label: str
    style: LineStyle
    runs: tuple[Run, ...]


def arrange_panels(
    experiment: Experiment,
    runs: Sequence[Run],
    *factors: str,
    max_panels: int = MAX_PANELS,
    axes_per_panel: int = 1,
    has_one_legend: bool = False,
) -> tuple[tuple[Panel, ...], str]:
    """Groups runs by all factors except these, into as many panels as a page holds.

    Args:
        axes_per_panel: see `panel_figure`, as the next one.

    Returns:
        The panels, and a sentence for the caption about those that are not shown.
    """
    others = experiment.other_factors(*factors)
    groups = experiment.by_setting(others, runs)
    every = tuple(Panel(experiment.label(group[0], others), tuple(group)) for group in groups)
    num_courses = most_courses(experiment, every, *factors)
    num_panels = min(len(every), max_panels)
    while num_panels > 1 and page().max_height_in < _height_in(
        num_panels * axes_per_panel, num_courses, axes_per_panel, has_one_legend
    ):
        num_panels -= 1
    chosen = choose_settings(experiment, groups, num_panels)
    panels = tuple(Panel(experiment.label(group[0], others), tuple(group)) for group in chosen)
    return panels, f" Shown are {len(panels)} of {len(groups)} settings." if len(panels) < len(groups) else ""


def choose_settings(
    experiment: Experiment, settings: Sequence[Sequence[Run]], max_settings: int
) -> list[Sequence[Run]]:
    """Returns as many settings as fit, in their order: the whole method and those most like it.

    Alike are those that differ from the defaults, which are the paper's method, in few factors, so what each
    of its parts does is seen. If an order was asked for, they are the first ones of that order.
    """

    def differences(place: int) -> int:
        config = settings[place][0].config
        return sum(
            config.get(factor) != WHOLE_METHOD[factor]
            for factor in experiment.factors
            if factor in WHOLE_METHOD
        )

    places = range(len(settings))
    ranked = places if experiment.shown.order else sorted(places, key=differences)
    return [settings[place] for place in sorted(ranked[:max_settings])]


def title_panel(axes: Axes, title: str) -> None:
    """Writes the title above a panel, in lines that fit."""
    figure, gridspec = axes.get_figure(root=True), axes.get_gridspec()
    assert figure is not None
    assert gridspec is not None
    width_in = figure.get_size_inches()[0] / gridspec.ncols - _LABELS_IN
    axes.set_title("\n".join(fit_lines(title, width_in, STYLE["axes.titlesize"])), loc="left")


def drawn_runs(panels: Sequence[Panel]) -> tuple[Run, ...]:
    """Returns all runs of the panels."""
    return tuple(run for panel in panels for run in panel.runs)


def courses_of(experiment: Experiment, panel: Panel, *factors: str) -> list[Course]:
    """Returns a line for each setting of these factors in a panel."""
    distinguishing, styles = setting_styles(experiment, factors)
    groups = experiment.by_setting(factors, panel.runs)
    differs = [factor for factor in factors if len({run.config.get(factor) for run in panel.runs}) > 1]
    named = differs or [factor for factor in factors if factor in experiment.factors] or list(factors[:1])
    return [
        Course(experiment.label(group[0], named), styles[group[0].setting(distinguishing)], tuple(group))
        for group in groups
    ]


def most_courses(experiment: Experiment, panels: Sequence[Panel], *factors: str) -> int:
    """Returns the largest number of lines in a panel, for the height of the legends."""
    return max(len(courses_of(experiment, panel, *factors)) for panel in panels)


def panel_figure(
    num_panels: int, num_courses: int, *, axes_per_panel: int = 1, has_one_legend: bool = False
) -> tuple[Figure, list[Axes]]:
    """Returns a figure, one column wide for one panel and two for more, with room for the legends.

    Args:
        axes_per_panel: one, or two side by side.
        has_one_legend: whether all panels have one legend, below them, instead of one each.
    """
    num_axes = num_panels * axes_per_panel
    width_in, num_columns = _columns(num_axes, axes_per_panel)
    num_rows = -(-num_axes // num_columns)
    figure = new_figure(width_in, _height_in(num_axes, num_courses, axes_per_panel, has_one_legend))
    axes = figure.subplots(num_rows, num_columns, squeeze=False).ravel().tolist()
    for unused in axes[num_axes:]:
        unused.remove()
    return figure, axes[:num_axes]


def _columns(num_axes: int, axes_per_panel: int) -> tuple[float, int]:
    """Width of a figure, and number of its columns."""
    width_in = page().narrow_in if num_axes == 1 else page().panels_in
    most = 2 if axes_per_panel == 2 or num_axes in (2, 4) else 3
    return width_in, min(num_axes, most, max(1, int(width_in // _PANEL_IN)))


def _height_in(num_axes: int, num_courses: int, axes_per_panel: int, has_one_legend: bool) -> float:
    num_rows = -(-num_axes // _columns(num_axes, axes_per_panel)[1])
    legend_in = _ENTRY_IN * num_courses
    if has_one_legend:
        return _AXES_IN * num_rows + legend_in + 0.1
    return (_AXES_IN + 0.25 + legend_in) * num_rows
