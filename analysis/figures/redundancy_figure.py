"""Redundancy: how many encodings of a search named a network that others name, too."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.ink.drawing import Drawing, NothingToDrawError, count
from analysis.figures.ink.panels import missing_note
from analysis.figures.ink.style import TWO_COLUMNS_IN, line_style, new_figure
from analysis.measures.depth import DepthCourse, measure_depth
from analysis.reading.experiment import Experiment, Run
from analysis.reading.values import Value

MAX_SETTINGS = 16


def redundancy_drawings(experiment: Experiment) -> list[Drawing]:
    """Redundant epochs and distinct networks, a row for each setting."""
    runs = experiment.searched
    if not runs:
        raise NothingToDrawError("no run with a trajectory")
    groups: dict[tuple[Value, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(run.setting(experiment.factors), []).append(run)
    rows = list(groups.values())[:MAX_SETTINGS]
    shown = f" Shown are {len(rows)} of {len(groups)} settings." if len(groups) > len(rows) else ""
    drawn = [run for row in rows for run in row]
    numbers = {run.run_id: measure_depth(run.trajectory) for run in drawn if run.trajectory is not None}
    space = runs[0].space
    caption = (
        "Architecture redundancy. Left: share of the joint epochs whose derived encoding is not the only "
        "one of its network. Right: distinct encodings (open) and distinct networks behind them (filled) "
        f"among the joint epochs. Small: each seed; large: their mean. The skip space of '{space.name}' "
        f"has {_power(space.num_skip_encodings())} encodings of {_power(space.num_networks())} "
        "networks; the sink space has one encoding a network. n = "
        f"{count(len(drawn), 'trial')}.{shown}{missing_note(experiment)}"
    )

    def draw() -> Figure:
        figure = new_figure(TWO_COLUMNS_IN, 0.75 + 0.24 * len(rows))
        left, right = figure.subplots(1, 2, sharey=True)
        _draw_shares(left, rows, numbers)
        _draw_counts(right, rows, numbers)
        left.set_yticks(
            range(len(rows)), [f"{experiment.label(row[0]) or 'all'} (n = {len(row)})" for row in rows]
        )
        left.set_ylim(len(rows) - 0.5, -0.5)
        return figure

    return [Drawing("redundancy", "Architecture redundancy", caption, tuple(drawn), draw)]


def _draw_shares(axes: Axes, rows: Sequence[Sequence[Run]], numbers: dict[str, DepthCourse]) -> None:
    for place, row in enumerate(rows):
        style = line_style(_style_index(row[0]))
        shares = np.array([numbers[run.run_id].redundant_share for run in row])
        axes.barh(place, shares.mean(), height=0.6, color=style.color, alpha=0.35, lw=0)
        axes.plot(
            shares,
            np.full(len(shares), place),
            linestyle="none",
            marker=style.marker,
            markersize=2.5,
            color=style.color,
            clip_on=False,
        )
        axes.plot(
            shares.mean(),
            place,
            marker=style.marker,
            markersize=5,
            color=style.color,
            markeredgecolor="black",
            markeredgewidth=0.5,
            clip_on=False,
        )
    axes.set_xlim(0, 1)
    axes.set_xlabel("redundant epochs (share of joint epochs)")


def _draw_counts(axes: Axes, rows: Sequence[Sequence[Run]], numbers: dict[str, DepthCourse]) -> None:
    for place, row in enumerate(rows):
        style = line_style(_style_index(row[0]))
        for values, fill in (
            ([numbers[run.run_id].num_encodings for run in row], "white"),
            ([numbers[run.run_id].num_networks for run in row], style.color),
        ):
            height = place + (-0.15 if fill == "white" else 0.15)
            axes.plot(
                values,
                np.full(len(values), height),
                linestyle="none",
                marker=style.marker,
                markersize=2.5,
                color=style.color,
                markerfacecolor=fill,
                markeredgewidth=0.5,
            )
            axes.plot(
                np.mean(values),
                height,
                marker=style.marker,
                markersize=5,
                color="black",
                markerfacecolor=fill,
                markeredgewidth=0.6,
            )
    axes.set_xlim(left=0)
    axes.set_xlabel("distinct encodings (open) and networks (filled)")


def _style_index(run: Run) -> int:
    return 0 if run.config.get("depth") == "skip" else 1


def _power(number: int) -> str:
    """A large number as a power of ten."""
    exponent = len(str(number)) - 1
    return str(number) if exponent < 5 else f"{number / 10**exponent:.1f}·10^{exponent}"
