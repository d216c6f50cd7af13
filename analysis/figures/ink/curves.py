"""Lines over epochs: the mean over seeds, each seed, and a band of one standard deviation.

Shapes: E epochs, N seeds.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from analysis.figures.ink.style import LineStyle, mark_narrow_warmup, mark_warmup
from analysis.reading.run import Run

READING = "Thin: each seed; thick: their mean; band: one standard deviation (of three seeds or more)."
MIN_SEEDS_OF_BAND = 3
"""A standard deviation of two seeds says no more than the two."""


def draw_course(
    axes: Axes, epochs: NDArray[np.int64], values_NE: NDArray[np.float64], style: LineStyle, label: str
) -> None:
    """Draws the line of a setting: its seeds, their mean, and a band if there are enough of them."""
    mean_E = values_NE.mean(axis=0)
    if len(values_NE) >= MIN_SEEDS_OF_BAND:
        spread_E = values_NE.std(axis=0, ddof=1)
        axes.fill_between(epochs, mean_E - spread_E, mean_E + spread_E, color=style.color, alpha=0.15, lw=0)
    if len(values_NE) > 1:
        seeds = [np.column_stack([epochs, values_E]) for values_E in values_NE]
        axes.add_collection(
            LineCollection(seeds, color=style.color, lw=0.5, alpha=0.6, linestyle=style.dashes)
        )
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


def draw_epoch_axis(axes: Axes, runs: Sequence[Run], *, is_narrow: bool = False) -> None:
    """Draws the axis of epochs up to the longest run, with the epochs shaded in which none searches yet.

    Args:
        is_narrow: whether these are a strip of little width, because nothing is drawn in them.
    """
    lengths = [epochs_of(run) for run in runs]
    if is_narrow:
        num_warmup = min(num_warmup for num_warmup, _ in lengths)
        mark_narrow_warmup(axes, num_warmup, max(num_epochs for _, num_epochs in lengths))
        axes.set_xlabel("epoch")
        return
    mark_warmup(axes, min(num_warmup for num_warmup, _ in lengths))
    axes.set_xlim(0.5, max(num_epochs for _, num_epochs in lengths) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")


def epochs_of(run: Run) -> tuple[int, int]:
    """Returns how many epochs only train weights, and how many there are in all."""
    # Methods without a warm-up have the field too, and rounds of evaluation come on top.
    if run.evaluations is not None and run.epochs is not None:
        return int(run.evaluations["epoch"].min()) - 1, len(run.epochs)
    if run.trajectory is not None:
        return int((~run.trajectory.is_joint_E).sum()), len(run.trajectory.epoch_E)
    return int(run.number("num_warmup_epochs")), int(run.number("num_epochs"))


def stack_epochs(runs: Sequence[Run], column: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Returns epochs and values_NE of a metric, up to the end of the shortest run."""
    tables = [run.epochs for run in runs if run.epochs is not None]
    length = min(map(len, tables))
    return (
        tables[0].index.to_numpy(np.int64)[:length],
        np.stack([table[column].to_numpy(np.float64)[:length] for table in tables]),
    )


def legend_below(axes: Axes) -> None:
    """Draws the legend below the axis."""
    # The pad is in font sizes, so it clears the axis label whatever the panel's height.
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0), borderaxespad=4.4, handlelength=3.2)
