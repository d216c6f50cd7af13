"""Best-so-far regret of search methods by evaluation, on a table of known accuracies.

Shapes: S seeds, V evaluations.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from analysis.figures.ink.figure_files import FORMATS
from analysis.figures.ink.page import page
from analysis.figures.ink.setting_styles import assign_styles
from analysis.figures.ink.style import (
    GRAY,
    STYLE,
    keep_names_plain,
    new_figure,
    our_style,
)

NAME = "regret-by-evaluations"


@dataclass(frozen=True)
class RegretCourse:
    """A method's line and band: median and quartiles over seeds, in points of accuracy, by evaluation."""

    method: str
    median_V: NDArray[np.float64]
    low_V: NDArray[np.float64]
    high_V: NDArray[np.float64]


def regret_courses(regrets_SV: Mapping[str, NDArray[np.float64]]) -> list[RegretCourse]:
    """Computes the line and the band of each method from its regrets, in points of accuracy."""
    return [
        RegretCourse(method, *np.quantile(points_SV, (0.5, 0.25, 0.75), axis=0))
        for method, points_SV in regrets_SV.items()
    ]


def save_regrets(
    courses: Sequence[RegretCourse], limits: Mapping[str, float], title: str, folder: Path
) -> list[Path]:
    """Draws the courses into a folder, as PNG, PDF and SVG.

    Args:
        limits: regrets that need no evaluations, each drawn as a level line, by name.

    Returns:
        The files.
    """
    paths = [folder / f"{NAME}.{suffix}" for suffix in FORMATS]
    with our_style():
        figure = _draw(courses, limits, title)
        keep_names_plain(figure)
        for path in paths:
            figure.savefig(path)
    return paths


def _draw(courses: Sequence[RegretCourse], limits: Mapping[str, float], title: str) -> Figure:
    figure = new_figure(page().narrow_in, 2.6)
    axes = figure.subplots()
    styles = assign_styles(("method",), [(course.method,) for course in courses])
    for index, course in enumerate(courses):
        style = styles[course.method,]
        edges = np.arange(len(course.median_V) + 1) + 0.5
        axes.stairs(
            course.high_V, edges, baseline=course.low_V, fill=True, color=style.color, alpha=0.15, lw=0
        )
        axes.stairs(
            course.median_V,
            edges,
            baseline=None,
            color=style.color,
            linestyle=style.dashes,
            lw=STYLE["lines.linewidth"],
            label=course.method,
            # Methods may begin with the same networks: the dashes of the first stay visible on the next one.
            zorder=3 - index / len(courses),
        )
    for name, points in limits.items():
        axes.axhline(points, color=GRAY, lw=0.8, label=name)
    # Logarithmic, and linear below a hundredth of a point, since a regret can be 0.
    axes.set_yscale("symlog", linthresh=0.01, linscale=0.3)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda points, _: f"{points:g}"))
    axes.set_ylim(bottom=0)
    axes.set(xlabel="evaluations", ylabel="regret (points of accuracy)")
    axes.set_title(title, loc="left")
    axes.legend(loc="upper right")
    return figure
