"""Operator collapse: layers x epochs, colored by the leading operator, one panel per trial.

Shapes: E epochs, L layers, X corners of an outline.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from analysis.figures.ink.drawing import Drawing
from analysis.figures.ink.style import (
    MAX_HEIGHT_IN,
    TWO_COLUMNS_IN,
    mark_warmup,
    new_figure,
    op_patch,
    op_style,
    write_in,
)
from analysis.measures.collapse import NO_LEADER, NOT_COUNTED, Collapse, measure_collapse
from analysis.reading.captions import count, left_out_note
from analysis.reading.experiment import Experiment
from analysis.reading.nothing_to_draw import for_grids
from analysis.reading.run import SEED, Run
from analysis.reading.values import Value, show_value
from nas.space.operators import SKIP_OP_NAME

MAX_PANELS = 16
_ROW_IN = 0.135
_CODE_IN = 0.24
_BAR = 0.88

Grid = list[list[Run | None]]


@for_grids
def collapse_drawings(experiment: Experiment) -> list[Drawing]:
    """Makes one drawing per page: a row per setting and seed, a column per sampling."""
    runs = experiment.searched_with("alpha_ELO")
    rows, shown = _arrange(experiment, runs)
    shown += left_out_note(experiment.searched, runs, "whose method has no alphas")
    layers = max(len(run.space.layers) for run in runs)
    panel_in = _ROW_IN * layers + 0.45
    rows_per_page = max(1, int((MAX_HEIGHT_IN - 1.2) // panel_in))
    pages = [rows[start : start + rows_per_page] for start in range(0, len(rows), rows_per_page)]
    return [
        _page(experiment, page, panel_in, number, len(pages), shown)
        for number, page in enumerate(pages, start=1)
    ]


def _arrange(experiment: Experiment, runs: Sequence[Run]) -> tuple[Grid, str]:
    """The trials in rows of equal setting, a column for each sampling; and what is not shown."""
    # Trials that failed get a panel that says so; those of other methods get none.
    without_alphas = {run.run_id for run in experiment.searched} - {run.run_id for run in runs}
    cells = [run for run in experiment.cells if run.run_id not in without_alphas]
    samplings = tuple(dict.fromkeys(run.config.get("sampling") for run in cells))
    others = (*experiment.other_factors("sampling"), SEED)
    by_row: dict[tuple[Value, ...], dict[Value, Run]] = {}
    for run in cells:
        by_row.setdefault(run.setting(others), {})[run.config.get("sampling")] = run
    settings = list(by_row)
    shown = ""
    max_rows = max(1, MAX_PANELS // len(samplings))
    if len(settings) > max_rows:
        first_seeds = {setting[:-1]: setting for setting in reversed(settings)}
        settings = list(reversed(first_seeds.values()))[:max_rows]
        shown = (
            f" Shown are {len(settings)} of {len(by_row)} settings and seeds, the first seed of each setting."
        )
    if all(len(by_row[setting]) == 1 for setting in settings):
        # Nothing to compare side by side: two trials per row, in their order.
        flat = [run for setting in settings for run in by_row[setting].values()]
        return [list(flat[start : start + 2]) for start in range(0, len(flat), 2)], shown
    return [[by_row[setting].get(sampling) for sampling in samplings] for setting in settings], shown


def _page(
    experiment: Experiment,
    rows: Grid,
    panel_in: float,
    number: int,
    num_pages: int,
    shown: str,
) -> Drawing:
    drawn = [run for row in rows for run in row if run is not None and run.trajectory is not None]
    numbers = {run.run_id: measure_collapse(run.trajectory) for run in drawn if run.trajectory is not None}
    page = f" Page {number} of {num_pages}." if num_pages > 1 else ""
    caption = (
        "Operator collapse. Each row of a panel is a searchable layer (stage.layer). Its color is the "
        "candidate with the highest probability at the end of the epoch, and the filled height of the row is "
        "that probability (full row = 1). A thick bar marks the epoch from which the leading operator no "
        "longer changes; it ignores identity (skip), and so may stand where identity leads. Layers without a "
        "bar do not count: the last network does not keep them, or their operators have no leader or never "
        "moved. Gray: warm-up, during which all candidates are equal. n = "
        f"{count(len(drawn), 'trial')}.{shown}{page}"
    )
    return Drawing(
        name="collapse" if number == 1 else f"collapse-{number}",
        title="Operator collapse",
        caption=caption,
        runs=tuple(drawn),
        draw=lambda: _draw(experiment, rows, numbers, panel_in),
    )


def _draw(experiment: Experiment, rows: Grid, numbers: dict[str, Collapse], panel_in: float) -> Figure:
    num_columns = max(len(row) for row in rows)
    figure = new_figure(TWO_COLUMNS_IN, panel_in * len(rows) + 0.6)
    panels = figure.subplots(len(rows), num_columns, squeeze=False)
    for row, axes_row in zip(rows, panels, strict=True):
        for column, axes in enumerate(axes_row):
            run = row[column] if column < len(row) else None
            _panel(experiment, axes, run, numbers, is_left=column == 0)
    for axes in panels[-1]:
        axes.set_xlabel("epoch")
    shown = [run for row in rows for run in row if run is not None and run.run_id in numbers]
    _legend(figure, _leading_operators(shown, numbers))
    return figure


def _panel(
    experiment: Experiment, axes: Axes, run: Run | None, numbers: dict[str, Collapse], *, is_left: bool
) -> None:
    if run is None:
        write_in(axes, "no such trial")
        return
    seed = show_value(SEED, run.seed)
    factors = ["sampling", *experiment.other_factors("sampling")]
    axes.set_title(f"{experiment.label(run, factors)}, {seed}", loc="left")
    if run.trajectory is None:
        write_in(axes, run.problem or run.outcome)
        return
    collapse = numbers[run.run_id]
    epochs = run.trajectory.epoch_E
    num_layers = collapse.leader_EL.shape[1]
    axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
    axes.set_ylim(num_layers, 0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    mark_warmup(axes, int((~run.trajectory.is_joint_E).sum()))
    _draw_stretches(axes, _stretches(epochs, collapse, run.space.candidate_names))
    counted = np.flatnonzero(collapse.lock_in_epoch_L != NOT_COUNTED)
    axes.vlines(
        collapse.lock_in_epoch_L[counted] - 0.5,
        counted + 0.5 - _BAR / 2,
        counted + 0.5 + _BAR / 2,
        color="black",
        lw=1.6,
        zorder=5,
    )
    _label_layers(axes, run, is_left)


@dataclass(frozen=True)
class Stretch:
    """Consecutive epochs in which one operator led a layer: a box, and its filled part."""

    op: str
    row: int
    start: float
    num_epochs: int
    box_X2: NDArray[np.float64]
    fill_X2: NDArray[np.float64]


def _stretches(epochs: NDArray[np.int64], collapse: Collapse, names: Sequence[str]) -> list[Stretch]:
    """The epochs of each layer, split where its leader changes, without those that have no leader."""
    stretches = []
    for row, (leader_E, probability_E) in enumerate(
        zip(collapse.leader_EL.T, collapse.probability_EL.T, strict=True)
    ):
        bounds = np.flatnonzero(np.diff(leader_E)) + 1
        for where in np.split(np.arange(len(leader_E)), bounds):
            leader = int(leader_E[where[0]])
            if leader == NO_LEADER:
                continue
            bottom = row + 0.5 + _BAR / 2
            box_X2 = _steps(epochs[where], np.ones(len(where)), bottom)
            fill_X2 = _steps(epochs[where], probability_E[where], bottom)
            start = float(epochs[where[0]]) - 0.5
            stretches.append(Stretch(names[leader], row, start, len(where), box_X2, fill_X2))
    return stretches


def _draw_stretches(axes: Axes, stretches: Sequence[Stretch]) -> None:
    # One collection per operator, not one artist per stretch: a page has thousands of them.
    for op in sorted({stretch.op for stretch in stretches}):
        style = op_style(op)
        own = [stretch for stretch in stretches if stretch.op == op]
        boxes = [stretch.box_X2 for stretch in own]
        fills = [stretch.fill_X2 for stretch in own]
        for polygons, face, ink in ((boxes, style.faded, style.color), (fills, style.color, style.ink)):
            axes.add_collection(
                PolyCollection(polygons, facecolor=face, hatchcolor=ink, hatch=style.hatch, edgecolor="none")
            )
    outlines = [stretch.box_X2 for stretch in stretches]
    axes.add_collection(PolyCollection(outlines, facecolor="none", edgecolor="#333333", linewidth=0.3))
    steps = [stretch.fill_X2[1:-1] for stretch in stretches]
    axes.add_collection(LineCollection(steps, color="black", linewidth=0.45))
    epoch_in = _epoch_in(axes)
    for stretch in stretches:
        if stretch.num_epochs * epoch_in > _CODE_IN:
            style = op_style(stretch.op)
            axes.text(
                stretch.start + 0.05 / epoch_in,
                stretch.row + 0.36,
                style.code,
                fontsize=4.6,
                va="center_baseline",
                path_effects=[withStroke(linewidth=1.4, foreground=style.faded)],
            )


def _epoch_in(axes: Axes) -> float:
    """Width of an epoch in inches, before the margins of the panels are known."""
    left, right = axes.get_xlim()
    gridspec = axes.get_gridspec()
    assert gridspec is not None
    return 0.88 * TWO_COLUMNS_IN / gridspec.ncols / (right - left)


def _steps(epochs: NDArray[np.int64], height_E: NDArray[np.float64], bottom: float) -> NDArray[np.float64]:
    """The corners of a staircase over epochs; a height of 1 is drawn `_BAR` high."""
    x = np.repeat(np.append(epochs - 0.5, epochs[-1] + 0.5), 2)
    y = np.concatenate([[bottom], np.repeat(bottom - _BAR * height_E, 2), [bottom]])
    return np.column_stack([x, y])


def _label_layers(axes: Axes, run: Run, is_left: bool) -> None:
    layers = run.space.layers
    axes.set_yticks(
        np.arange(len(layers)) + 0.5, [f"{layer.stage + 1}.{layer.index + 1}" for layer in layers]
    )
    axes.tick_params(axis="y", length=0, labelsize=5.5)
    for row, layer in enumerate(layers):
        if row and layer.index == 0:
            axes.axhline(row, color="black", lw=0.6)
    if is_left:
        axes.set_ylabel("layer")


def _leading_operators(runs: Sequence[Run], numbers: dict[str, Collapse]) -> list[str]:
    """Every operator that led a layer, in the order of the space."""
    leaders: dict[str, None] = {}
    for run in runs:
        present = set(np.unique(numbers[run.run_id].leader_EL)) - {NO_LEADER}
        leaders |= dict.fromkeys(name for op, name in enumerate(run.space.candidate_names) if op in present)
    return sorted(leaders, key=lambda name: name == SKIP_OP_NAME)


def _legend(figure: Figure, ops: Sequence[str]) -> None:
    handles = [op_patch(op, op if op == SKIP_OP_NAME else f"{op} ({op_style(op).code})") for op in ops]
    if handles:
        figure.legend(
            handles=handles, loc="outside upper center", ncols=5, handlelength=2.4, columnspacing=1.4
        )
