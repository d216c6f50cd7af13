"""Small multiples: a panel for each setting of the other factors, a course for each value of one."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.runs import Experiment, Run
from analysis.style import ONE_COLUMN_IN, TWO_COLUMNS_IN, new_figure
from analysis.values import Value

MAX_PANELS = 12


@dataclass(frozen=True)
class Panel:
    """The runs that agree in all factors but one."""

    title: str
    runs: tuple[Run, ...]


def arrange_panels(
    experiment: Experiment, runs: Sequence[Run], *factors: str
) -> tuple[tuple[Panel, ...], str]:
    """The runs by their setting of all factors but these; and, for the caption, what is not shown.

    A panel's runs also have equal numbers of epochs, since that is part of a setting.
    """
    others = experiment.other_factors(*factors)
    groups: dict[tuple[Value, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(run.setting(others), []).append(run)
    panels = tuple(Panel(experiment.label(group[0], others), tuple(group)) for group in groups.values())
    if len(panels) <= MAX_PANELS:
        return panels, ""
    return panels[:MAX_PANELS], f" Shown are the first {MAX_PANELS} of {len(panels)} settings."


def courses_of(runs: Sequence[Run], *factors: str) -> list[tuple[Value, tuple[Run, ...]]]:
    """The runs for each value of a factor (of several: the first that differs is named)."""
    groups: dict[tuple[Value, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(run.setting(factors), []).append(run)
    return [(key[0], tuple(group)) for key, group in groups.items()]


def panel_figure(num_panels: int, height_in: float) -> tuple[Figure, list[Axes]]:
    """A figure of one column for one panel, of two columns for more."""
    num_columns = min(num_panels, 2 if num_panels in (2, 4) else 3)
    num_rows = -(-num_panels // num_columns)
    width_in = ONE_COLUMN_IN if num_panels == 1 else TWO_COLUMNS_IN
    figure = new_figure(width_in, height_in * num_rows)
    axes = figure.subplots(num_rows, num_columns, squeeze=False).ravel().tolist()
    for unused in axes[num_panels:]:
        unused.remove()
    return figure, axes[:num_panels]
