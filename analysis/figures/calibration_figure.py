"""Predicted against measured latency of whole networks, as a scatter plot.

Shapes: N networks.
"""

from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from analysis.figures.ink.style import GRAY, LIGHT_GRAY, ONE_COLUMN_IN, STYLE, line_style, new_figure
from nas.foundation.errors import UserError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CalibrationPlot:
    """A plot of predicted against measured latency.

    Attributes:
        title: table and device.
        summary: error and rank correlation, in one line.
        iqr_ms_N: interquartile range of each measured latency.
        half_width_percent: half the width of the prediction interval, in percent; None for no interval.
    """

    title: str
    summary: str
    predicted_ms_N: Floats
    measured_ms_N: Floats
    iqr_ms_N: Floats
    half_width_percent: float | None = None

    def save(self, path: Path) -> None:
        """Draws the plot into a file: PNG, PDF or SVG, by its suffix.

        Raises:
            UserError: the file cannot be written.
        """
        with mpl.rc_context(STYLE):
            figure = draw_calibration(self)
            try:
                figure.savefig(path)
            except OSError as error:
                raise UserError(
                    f"{path}: cannot write the plot: {error.strerror}; choose another path"
                ) from None


def draw_calibration(plot: CalibrationPlot) -> Figure:
    """Draws networks as points with their interquartile range, and the line of equality."""
    figure = new_figure(ONE_COLUMN_IN, ONE_COLUMN_IN)
    axes = figure.subplots()
    both_2 = np.array([0.0, 1.08 * max(plot.predicted_ms_N.max(), plot.measured_ms_N.max())])
    if plot.half_width_percent is not None:
        share = plot.half_width_percent / 100
        axes.fill_between(
            both_2,
            both_2 * (1 - share),
            both_2 * (1 + share),
            color=LIGHT_GRAY,
            linewidth=0,
            label="95 % prediction interval",
        )
    axes.plot(both_2, both_2, color=GRAY, linewidth=0.8, label="equal")
    style = line_style(0)
    axes.errorbar(
        plot.predicted_ms_N,
        plot.measured_ms_N,
        yerr=plot.iqr_ms_N / 2,
        fmt=style.marker,
        color=style.color,
        markersize=3,
        elinewidth=0.6,
        label="a random network, interquartile range",
    )
    axes.set(xlim=both_2, ylim=both_2, xlabel="predicted latency (ms)", ylabel="measured latency (ms)")
    axes.set_aspect("equal")
    axes.set_title(f"{plot.title}\n{plot.summary}", loc="left")
    axes.legend(loc="lower right")
    return figure
