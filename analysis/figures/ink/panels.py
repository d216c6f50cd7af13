"""Small multiples: a panel for each setting of the other factors, a course for each value of some."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.ink.drawing import count
from analysis.figures.ink.style import ONE_COLUMN_IN, TWO_COLUMNS_IN, new_figure
from analysis.reading.experiment import Experiment, Run
from analysis.reading.values import Value

MAX_PANELS = 9


@dataclass(frozen=True)
class Panel:
    """The runs that agree in all factors but those that tell courses apart."""

    title: str
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Course:
    """The runs of one line, alike but for the seed.

    Attributes:
        index: the place of its setting among those of the whole figure, for its style.
    """

    label: str
    index: int
    runs: tuple[Run, ...]


def arrange_panels(
    experiment: Experiment, runs: Sequence[Run], *factors: str, max_panels: int = MAX_PANELS
) -> tuple[tuple[Panel, ...], str]:
    """The runs by their setting of all factors but these; and, for the caption, what is not shown."""
    others = experiment.other_factors(*factors)
    groups: dict[tuple[Value, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(run.setting(others), []).append(run)
    panels = tuple(Panel(experiment.label(group[0], others), tuple(group)) for group in groups.values())
    if len(panels) <= max_panels:
        return panels, ""
    return panels[:max_panels], f" Shown are the first {max_panels} of {len(panels)} settings."


def drawn_runs(panels: Sequence[Panel]) -> tuple[Run, ...]:
    """All runs of the panels."""
    return tuple(run for panel in panels for run in panel.runs)


def courses_of(experiment: Experiment, panel: Panel, *factors: str) -> list[Course]:
    """The runs of a panel for each setting of these factors."""
    order = list(dict.fromkeys(run.setting(factors) for run in experiment.cells))
    groups: dict[tuple[Value, ...], list[Run]] = {}
    for run in panel.runs:
        groups.setdefault(run.setting(factors), []).append(run)
    differs = [factor for factor in factors if len({run.config.get(factor) for run in panel.runs}) > 1]
    named = differs or [factor for factor in factors if factor in experiment.factors] or list(factors[:1])
    return [
        Course(experiment.label(group[0], named), order.index(setting), tuple(group))
        for setting, group in groups.items()
    ]


def most_courses(experiment: Experiment, panels: Sequence[Panel], *factors: str) -> int:
    """The largest number of courses in a panel, for the height of the legends."""
    return max(len(courses_of(experiment, panel, *factors)) for panel in panels)


def panel_figure(num_panels: int, num_courses: int, max_columns: int = 3) -> tuple[Figure, list[Axes]]:
    """A figure of one column for one panel, of two columns for more, with room for the legends."""
    height_in = 1.85 + 0.135 * num_courses
    num_columns = min(num_panels, 2 if num_panels in (2, 4) else 3, max_columns)
    num_rows = -(-num_panels // num_columns)
    width_in = ONE_COLUMN_IN if num_panels == 1 else TWO_COLUMNS_IN
    figure = new_figure(width_in, height_in * num_rows)
    axes = figure.subplots(num_rows, num_columns, squeeze=False).ravel().tolist()
    for unused in axes[num_panels:]:
        unused.remove()
    return figure, axes[:num_panels]


def missing_note(experiment: Experiment) -> str:
    """For the caption: the cells without a finished run."""
    if not experiment.missing:
        return ""
    names = ", ".join(run.name for run in experiment.missing[:4])
    more = ", ..." if len(experiment.missing) > 4 else ""
    return f" Missing: {count(len(experiment.missing), 'trial')} ({names}{more})."
