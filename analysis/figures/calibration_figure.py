"""Predicted against measured latency of whole networks, as a scatter plot.

Shapes: N networks.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.ink.page import page
from analysis.figures.ink.style import (
    GRAY,
    LIGHT_GRAY,
    STYLE,
    fit_lines,
    keep_names_plain,
    line_style,
    new_figure,
    our_style,
)
from nas.foundation.errors import UserError
from nas.latency.calibration import TableCheck
from nas.latency.table import LatencyTable


def save_calibration(name: str, table: LatencyTable, check: TableCheck, path: Path) -> None:
    """Draws the networks of a table's check into a file: PNG, PDF or SVG, by its suffix.

    The numbers are written beside it, as CSV.

    Args:
        name: what the title calls the table.

    Raises:
        UserError: the file cannot be written.
    """
    with our_style():
        figure = draw_calibration(name, table, check)
        keep_names_plain(figure)
        try:
            figure.savefig(path)
            _tabulate(check).to_csv(path.with_suffix(".csv"), index=False, lineterminator="\n")
        except OSError as error:
            raise UserError(f"{path}: cannot write the plot: {error.strerror}; choose another path") from None


def _tabulate(check: TableCheck) -> pd.DataFrame:
    """A row for each network."""
    return pd.DataFrame(
        {
            "predicted_ms": check.predicted_ms_N,
            "measured_ms": check.measured_ms_N,
            "iqr_ms": [timing.iqr_ms for timing in check.timings],
        }
    )


def draw_calibration(name: str, table: LatencyTable, check: TableCheck) -> Figure:
    """Draws networks as points with their interquartile range, and the line of equality."""
    figure = new_figure(page().narrow_in, page().narrow_in)
    axes = figure.subplots()
    iqr_ms_N = np.array([timing.iqr_ms for timing in check.timings])
    highest_ms_N = np.maximum(check.predicted_ms_N, check.measured_ms_N + iqr_ms_N / 2)
    both_2 = np.array([0.0, 1.08 * highest_ms_N.max()])
    if table.calibration:
        share = table.calibration.half_width_percent / 100
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
        check.predicted_ms_N,
        check.measured_ms_N,
        yerr=iqr_ms_N / 2,
        fmt=style.marker,
        color=style.color,
        markersize=3,
        elinewidth=0.6,
        label="a random network, interquartile range",
    )
    axes.set(xlim=both_2, ylim=both_2, xlabel="predicted latency (ms)", ylabel="measured latency (ms)")
    axes.set_aspect("equal")
    agreement = check.agreement
    summary = (
        f"error {agreement.mape_percent:.1f} %, bias {agreement.bias_percent:+.1f} %, "
        f"Spearman {agreement.spearman:.3f}, n = {agreement.num_networks}"
    )
    title = f"{name}: '{table.space}' on {table.provenance.device_name}"
    size_pt = STYLE["axes.titlesize"]
    lines = [line for text in (title, summary) for line in fit_lines(text, page().narrow_in - 0.1, size_pt)]
    figure.suptitle("\n".join(lines), x=0.05 / page().narrow_in, ha="left", fontsize=size_pt)
    axes.legend(loc="lower right")
    return figure
