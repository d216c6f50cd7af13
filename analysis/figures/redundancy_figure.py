"""Redundancy: how many encodings of a search stand for a network that other encodings stand for too."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Self

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.ink.drawing import Drawing, tabulate
from analysis.figures.ink.page import page
from analysis.figures.ink.setting_styles import assign_styles
from analysis.figures.ink.style import LineStyle, new_figure
from analysis.measures.depth import count_encodings, redundant_share
from analysis.reading.captions import count, left_out_note, missing_note
from analysis.reading.experiment import Experiment
from analysis.reading.nothing_to_draw import for_grids
from analysis.reading.run import Run
from analysis.writing.latex import SUPERSCRIPTS
from nas.search.records import Trajectory

MAX_SETTINGS = 16


@dataclass(frozen=True)
class _Redundancy:
    """Redundant joint epochs of a search, and its distinct encodings and networks."""

    redundant_share: float
    num_encodings: int
    num_networks: int

    @classmethod
    def of(cls, trajectory: Trajectory) -> Self:
        return cls(redundant_share(trajectory), *count_encodings(trajectory))


@for_grids
def redundancy_drawings(experiment: Experiment) -> list[Drawing]:
    """Draws redundant epochs and distinct networks, in a row for each setting."""
    runs = experiment.searched_with("redundant_E")
    settings = experiment.by_setting(runs=runs)
    rows = settings[:MAX_SETTINGS]
    shown = f" Shown are {len(rows)} of {len(settings)} settings." if len(settings) > len(rows) else ""
    shown += left_out_note(experiment.searched, runs, "whose method has no encodings")
    drawn = [run for row in rows for run in row]
    numbers = {run.run_id: _Redundancy.of(run.trajectory) for run in drawn if run.trajectory is not None}
    space = runs[0].space
    caption = (
        "Architecture redundancy. Left: share of the joint epochs whose derived encoding is not the only "
        "one of its network. Right: distinct encodings (open) and distinct networks behind them (filled) "
        "among the joint epochs. Small: each seed; large: their mean. "
        f"The space '{space.name}' has {_power(space.num_networks())} networks, with "
        f"{_power(space.num_skip_encodings())} encodings in the skip space and "
        f"{_power(space.num_sink_encodings())} in the sink space. n = "
        f"{count(len(drawn), 'trial')}.{shown}{missing_note(experiment)}"
    )

    def draw() -> Figure:
        figure = new_figure(page().wide_in, 0.85 + 0.24 * len(rows))
        left, right = figure.subplots(1, 2, sharey=True)
        _draw_shares(left, rows, numbers)
        _draw_counts(right, rows, numbers)
        left.set_yticks(
            range(len(rows)), [f"{experiment.label(row[0]) or 'all'} (n = {len(row)})" for row in rows]
        )
        left.set_ylim(len(rows) - 0.5, -0.5)
        return figure

    table = tabulate(experiment, drawn, lambda run: [asdict(numbers[run.run_id])])
    return [Drawing("redundancy", "Architecture redundancy", caption, tuple(drawn), draw, table)]


def _draw_shares(axes: Axes, rows: Sequence[Sequence[Run]], numbers: dict[str, _Redundancy]) -> None:
    for place, row in enumerate(rows):
        style = _style(row[0])
        shares = [numbers[run.run_id].redundant_share for run in row]
        axes.barh(place, np.mean(shares), height=0.6, color=style.color, alpha=0.35, lw=0)
        _draw_seeds(axes, shares, place, style, style.color)
    axes.set_xlim(0, 1)
    axes.set_xlabel("redundant epochs\n(share of joint epochs)")


def _draw_counts(axes: Axes, rows: Sequence[Sequence[Run]], numbers: dict[str, _Redundancy]) -> None:
    for place, row in enumerate(rows):
        style = _style(row[0])
        encodings = [numbers[run.run_id].num_encodings for run in row]
        networks = [numbers[run.run_id].num_networks for run in row]
        _draw_seeds(axes, encodings, place - 0.15, style, "white")
        _draw_seeds(axes, networks, place + 0.15, style, style.color)
    axes.set_xlim(left=0)
    axes.set_xlabel("distinct encodings (open)\nand networks (filled)")


def _draw_seeds(axes: Axes, values: Sequence[float], height: float, style: LineStyle, fill: str) -> None:
    """Draws each seed small and their mean large."""
    axes.plot(
        values,
        np.full(len(values), height),
        linestyle="none",
        marker=style.marker,
        markersize=2.5,
        color=style.color,
        markerfacecolor=fill,
        markeredgewidth=0.5,
        clip_on=False,
    )
    axes.plot(
        np.mean(values),
        height,
        marker=style.marker,
        markersize=5,
        color="black",
        markerfacecolor=fill,
        markeredgewidth=0.5,
        clip_on=False,
    )


def _style(run: Run) -> LineStyle:
    """That of its depth space."""
    return assign_styles(("depth",), [run.setting(("depth",))])[run.setting(("depth",))]


def _power(number: int) -> str:
    """Writes a large number as a power of ten."""
    exponent = len(str(number)) - 1
    if exponent < 5:
        return str(number)
    return f"{number / 10**exponent:.1f}·10{str(exponent).translate(SUPERSCRIPTS)}"
