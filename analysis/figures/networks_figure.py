"""The search space and derived networks as diagrams."""

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, Rectangle

from analysis.figures.ink.drawing import Drawing, tabulate
from analysis.figures.ink.page import page
from analysis.figures.ink.panels import choose_settings
from analysis.figures.ink.style import (
    GRAY,
    LIGHT_GRAY,
    fit_lines,
    new_figure,
    op_patch,
    op_style,
    text_width_in,
)
from analysis.reading.captions import count, missing_note
from analysis.reading.experiment import Experiment
from analysis.reading.nothing_to_draw import NothingToDrawError, for_grids
from analysis.reading.run import SEED, Run
from analysis.reading.values import show_value
from nas.space.architecture import Architecture
from nas.space.macro_space import Space, get_space

MAX_NETWORKS = 16
_TEXT_PT = 6.0
"""Readable where the text is as wide as in LNCS; nothing is smaller."""
_MIN_WIDTH_IN = 4.7
"""In less, the text of small boxes would overlap."""
_ROW_IN, _HIGH_ROW_IN, _LEGENDS_IN = 0.5, 0.62, 1.1
"""Height of a network, of one with upright numbers, and of the legend above and the stages below."""
_BOX = 0.8
_LABELS_SHARE = 0.24
"""Of the width of the diagram of networks, at the left."""
_SINK_RADIUS = 0.2
_BLOCK = 2.0
"""Width of a block that is not searched; its name in a line of its own fits."""
_STAGES_PER_ROW = 3
_BELOW = 1.7
"""What the lines below a stage take, in units of a layer."""
_ARC = 0.45
"""Curvature of the arcs into a sink; their height is half of it, times their length."""
_UNIT_IN = 0.25
"""Width of a unit of the diagram of a space, at most."""


_COUNTED = (
    " Layers are counted within the network: one that a search of the skip space leaves out makes no gap, "
    "unlike in the map of operator collapse."
)


@for_grids
def network_drawings(experiment: Experiment) -> list[Drawing]:
    """Draws the space of the runs, and the networks that they derived."""
    runs = tuple(run for run in experiment.runs if run.architecture is not None)
    if not runs:
        raise NothingToDrawError("no run with architecture.json")
    return [_space_drawing(experiment, runs), _networks_drawing(experiment, runs)]


def _width_in() -> float:
    """The width of the text, or of the page where that is a column."""
    return page().text_in if page().text_in >= _MIN_WIDTH_IN else page().wide_in


def _is_of_skip_space(run: Run) -> bool:
    return run.config.get("depth") == "skip"


def _networks_drawing(experiment: Experiment, all_runs: Sequence[Run]) -> Drawing:
    runs = all_runs
    max_networks = min(MAX_NETWORKS, int((page().max_height_in - _LEGENDS_IN) // _HIGH_ROW_IN))
    if len(runs) > max_networks:
        settings = choose_settings(experiment, experiment.by_setting(runs=runs), max_networks)
        runs = [setting[0] for setting in settings]
    shown = (
        f" Shown are {len(runs)} of {count(len(all_runs), 'trial')}, the first seed of each setting."
        if len(runs) < len(all_runs)
        else ""
    )
    networks = [run.architecture for run in runs if run.architecture is not None]
    space = get_space(networks[0].space)
    caption = (
        "Derived networks at the end of the search. A box is a layer of the derived network. Its color shows "
        "the operator, its height the mid channels over the input channels (full height: "
        f"{_max_expansion(space):g}), the number its mid channels. Dotted: layers that the network does not "
        f"have.{_COUNTED if any(map(_is_of_skip_space, runs)) else ''} n = "
        f"{count(len(runs), 'trial')}.{shown}{missing_note(experiment)}"
    )

    def draw() -> Figure:
        row_in = _HIGH_ROW_IN if _stands(networks) else _ROW_IN
        figure = new_figure(_width_in(), row_in * len(runs) + _LEGENDS_IN)
        axes = figure.subplots()
        for place, (run, network) in enumerate(zip(runs, networks, strict=True)):
            _draw_network(
                axes, space, network, place, _network_label(experiment, run), stands=_stands(networks)
            )
        _name_stages(axes, space, len(runs), row_in)
        _op_legend(figure, networks)
        return figure

    table = tabulate(experiment, runs, _network_rows)
    return Drawing("networks", "Derived networks", caption, tuple(runs), draw, table)


def _network_rows(run: Run) -> Iterator[dict[str, str | int]]:
    """A row for each layer of the derived network, which are counted without those that it does not have."""
    assert run.architecture is not None
    for layer, op, width in run.architecture.layers:
        yield {"layer": f"{layer.stage + 1}.{layer.index + 1}", "operator": op.name, "mid_channels": width}


def _max_expansion(space: Space) -> float:
    """Largest ratio of mid channels to input channels that the space allows."""
    in_channels = 3  # for which all bounds are whole
    return max(op.width_interval(in_channels)[1] / in_channels for op in space.ops)


def _network_label(experiment: Experiment, run: Run) -> str:
    """Setting and seed in as many lines as fit beside the network, and its latency."""
    parts = [experiment.label(run), show_value(SEED, run.seed)]
    lines = fit_lines(", ".join(filter(None, parts)), _LABELS_SHARE * _width_in() - 0.1, _TEXT_PT)
    return "\n".join((*lines, f"{run.metric('derived_latency_ms'):.4g} ms"))


def _layer_in(space: Space) -> float:
    """Width of a layer, with the gap after it, in the diagram of networks."""
    return (1 - _LABELS_SHARE) * _width_in() / _stage_starts(space)[-1]


def _stands(networks: Sequence[Architecture]) -> bool:
    """Whether numbers of mid channels stand upright, because they are wider than a layer."""
    widest = max(text_width_in(str(width), _TEXT_PT) for network in networks for *_, width in network.layers)
    return widest > 0.95 * _layer_in(get_space(networks[0].space))


def _stage_starts(space: Space, gap: float = 0.5) -> list[float]:
    """Where each stage begins on an axis of one unit per layer."""
    widths = [spec.num_layers + gap for spec in space.stages]
    return [0.0, *np.cumsum(widths).tolist()]


def _draw_network(
    axes: Axes, space: Space, network: Architecture, place: int, label: str, *, stands: bool
) -> None:
    floor = place + 0.92
    starts = _stage_starts(space)
    scale = (-0.45 if stands else -0.62) / _max_expansion(space)
    for stage, spec in enumerate(space.stages):
        for index in range(len(network.stages[stage]), spec.num_layers):
            corner = (starts[stage] + index, floor)
            axes.add_patch(
                Rectangle(corner, _BOX, -0.2, facecolor="none", edgecolor=GRAY, lw=0.5, linestyle=":")
            )
    for layer, op, width in network.layers:
        left = starts[layer.stage] + layer.index
        style = op_style(op.name)
        height = scale * width / layer.in_channels
        axes.add_patch(
            Rectangle((left, floor), _BOX, height, facecolor=style.color, edgecolor="#333333", lw=0.4)
        )
        top = floor + height - 0.03
        rotation = 90 if stands else 0
        axes.text(
            left + _BOX / 2,
            top,
            str(width),
            ha="center",
            va="bottom",
            fontsize=_TEXT_PT,
            rotation=rotation,
        )
    axes.text(-0.3, place + 0.56, label, ha="right", va="center", fontsize=_TEXT_PT, linespacing=1.2)


def _name_stages(axes: Axes, space: Space, num_rows: int, row_in: float) -> None:
    starts = _stage_starts(space)
    for number, (start, spec) in enumerate(zip(starts, space.stages, strict=False), start=1):
        resolution = space.stage_layers(number - 1)[0].resolution
        name = f"stage {number}"
        if text_width_in(name, _TEXT_PT) > (spec.num_layers + 0.3) * _layer_in(space):
            name = str(number)
        text = f"{name}\n{spec.out_channels} ch.\n{resolution}²"
        middle = start + (spec.num_layers - 1 + _BOX) / 2
        axes.text(middle, num_rows + 0.05, text, ha="center", va="top", fontsize=_TEXT_PT)
    axes.set_xlim(-_LABELS_SHARE / (1 - _LABELS_SHARE) * starts[-1], starts[-1])
    axes.set_ylim(num_rows + 0.05 + 0.36 / row_in, 0)
    axes.axis("off")


def _op_legend(figure: Figure, networks: Sequence[Architecture]) -> None:
    present = {op.name for network in networks for _, op, _ in network.layers}
    order = dict.fromkeys(op.name for network in networks for op in get_space(network.space).ops)
    handles = [op_patch(name, name) for name in order if name in present]
    figure.legend(handles=handles, loc="outside upper center", ncols=4, handlelength=2.2, columnspacing=1.2)


def _space_drawing(experiment: Experiment, runs: Sequence[Run]) -> Drawing:
    space = runs[0].space
    skip = (
        " In the skip space there are no sinks; layers that keep the shape (thick outline) have identity "
        "as a further candidate."
        if any(map(_is_of_skip_space, runs))
        else ""
    )
    caption = (
        f"The search space '{space.name}' ({space.resolution}x{space.resolution} input): a box is a "
        f"searchable layer with {len(space.ops)} candidate operators, each of searchable width. Arcs "
        f"lead from the depths that a stage may have to its sink. {len(space.layers)} searchable "
        f"layers.{skip}"
    )

    def draw() -> Figure:
        rows = _rows_of_stages(space)
        num_units = max(_row_width(space, row) for row in rows) + 0.2
        unit_in = min(_UNIT_IN, (_width_in() - 0.06) / num_units)
        figure = new_figure(_width_in(), 0.08 + unit_in * (_height(space) + _BELOW) * len(rows))
        _draw_space(figure.subplots(), space, rows)
        return figure

    table = tabulate(experiment, runs[:1], lambda run: _space_rows(run.space))
    return Drawing("space", "Search space", caption, (runs[0],), draw, table)


def _space_rows(space: Space) -> Iterator[dict[str, str | int | bool]]:
    """A row for each searchable layer."""
    for layer in space.layers:
        yield {
            "layer": f"{layer.stage + 1}.{layer.index + 1}",
            "in_channels": layer.in_channels,
            "out_channels": space.stages[layer.stage].out_channels,
            "resolution": layer.resolution,
            "keeps_shape": layer.keeps_shape,
            "leads_to_sink": layer.index + 1 >= space.min_depth(layer.stage),
        }


def _rows_of_stages(space: Space) -> list[range]:
    """The stages of each row of the diagram."""
    starts = range(0, len(space.stages), _STAGES_PER_ROW)
    return [range(start, min(start + _STAGES_PER_ROW, len(space.stages))) for start in starts]


def _row_width(space: Space, row: range) -> float:
    """In units of a layer: its stages, and the blocks before the first and after the last stage."""
    width = sum(_stage_width(space, stage) for stage in row)
    width += 2 * (_BLOCK + 0.3) if row[0] == 0 else 0.3
    return width + (_BLOCK if row[-1] + 1 == len(space.stages) else 0)


def _height(space: Space) -> float:
    """Of the longest arc, above the lower edge of the boxes."""
    return 0.9 + _ARC / 2 * (max(spec.num_layers for spec in space.stages) - 0.5)


def _stage_width(space: Space, stage: int) -> float:
    return space.stages[stage].num_layers + 0.8


def _draw_space(axes: Axes, space: Space, rows: Sequence[range]) -> None:
    for number, row in enumerate(rows):
        x, floor = 0.0, -(_height(space) + _BELOW) * number
        if row[0] == 0:
            for name in (f"conv 3x3\n{space.stem_channels} ch.", f"MBConv\n{space.stem_block_channels} ch."):
                _draw_fixed_block(axes, x, floor, name)
                x += _BLOCK + 0.3
                _draw_arrow(axes, x - 0.3, x, floor)
        else:
            x = 0.3
            _draw_arrow(axes, 0, x, floor)
        for stage in row:
            x = _draw_stage(axes, space, stage, x, floor)
    _draw_fixed_block(axes, x, floor, f"conv 1x1\n{space.head_channels} ch.")
    axes.set_xlim(-0.1, max(_row_width(space, row) for row in rows) + 0.1)
    axes.set_ylim(floor - _BELOW, _height(space))
    axes.set_aspect("equal")
    axes.axis("off")


def _draw_stage(axes: Axes, space: Space, stage: int, start: float, floor: float) -> float:
    """Draws the layers, the sink and the arcs of a stage; returns where the next one starts."""
    spec = space.stages[stage]
    sink = start + spec.num_layers + 0.25
    for layer in space.stage_layers(stage):
        left, outline = start + layer.index, 1.3 if layer.keeps_shape else 0.6
        box = Rectangle((left, floor), _BOX, 0.8, facecolor="white", edgecolor="#0072b2", lw=outline)
        axes.add_patch(box)
        name = f"{stage + 1}.{layer.index + 1}"
        axes.text(left + _BOX / 2, floor + 0.4, name, ha="center", va="center", fontsize=_TEXT_PT)
        is_last = layer.index + 1 == spec.num_layers
        _draw_arrow(axes, left + _BOX, sink - _SINK_RADIUS if is_last else left + 1, floor)
        if space.min_depth(stage) <= layer.index + 1 < spec.num_layers:
            arc = FancyArrowPatch(
                (left + _BOX, floor + 0.8),
                (sink, floor + 0.62),
                connectionstyle=f"arc3,rad={-_ARC}",
                arrowstyle="-|>",
                mutation_scale=4,
                lw=0.5,
                color="#d55e00",
            )
            axes.add_patch(arc)
    axes.add_patch(Circle((sink, floor + 0.4), _SINK_RADIUS, facecolor="white", edgecolor="#d55e00", lw=0.7))
    axes.text(sink, floor + 0.385, "+", ha="center", va="center", fontsize=_TEXT_PT, color="#d55e00")
    note = f"stage {stage + 1}\n{spec.out_channels} ch.\nstride {spec.stride}\n{spec.activation}"
    middle = start + (spec.num_layers - 1 + _BOX) / 2
    axes.text(middle, floor - 0.15, note, ha="center", va="top", fontsize=_TEXT_PT)
    _draw_arrow(axes, sink + _SINK_RADIUS, sink + 0.55, floor)
    return sink + 0.55


def _draw_arrow(axes: Axes, start: float, end: float, floor: float) -> None:
    """Draws the way from a block to the next one."""
    arrow = FancyArrowPatch(
        (start, floor + 0.4),
        (end, floor + 0.4),
        arrowstyle="-|>",
        mutation_scale=3.5,
        shrinkA=0,
        shrinkB=0,
        lw=0.5,
        color="#333333",
    )
    axes.add_patch(arrow)


def _draw_fixed_block(axes: Axes, x: float, floor: float, name: str) -> None:
    """Draws a block with its name, and its channels below it like those of stages."""
    name, channels = name.split("\n")
    axes.add_patch(Rectangle((x, floor), _BLOCK, 0.8, facecolor=LIGHT_GRAY, edgecolor="#333333", lw=0.5))
    axes.text(x + _BLOCK / 2, floor + 0.4, name, ha="center", va="center", fontsize=_TEXT_PT)
    axes.text(x + _BLOCK / 2, floor - 0.15, channels, ha="center", va="top", fontsize=_TEXT_PT)
