"""The search space and derived networks as diagrams."""

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, Rectangle

from analysis.figures.ink.drawing import Drawing, tabulate
from analysis.figures.ink.page import page
from analysis.figures.ink.style import GRAY, LIGHT_GRAY, new_figure, op_patch, op_style
from analysis.reading.captions import count, missing_note
from analysis.reading.experiment import Experiment
from analysis.reading.nothing_to_draw import NothingToDrawError, for_grids
from analysis.reading.run import SEED, Run
from analysis.reading.values import show_value
from nas.space.architecture import Architecture
from nas.space.macro_space import Space, get_space

MAX_NETWORKS = 16
_BOX = 0.8
_SINK_RADIUS = 0.2
_SPACE_HEIGHT = 2.7


@for_grids
def network_drawings(experiment: Experiment) -> list[Drawing]:
    """Draws the space of the runs, and the networks that they derived."""
    runs = tuple(run for run in experiment.runs if run.architecture is not None)
    if not runs:
        raise NothingToDrawError("no run with architecture.json")
    return [_space_drawing(experiment, runs), _networks_drawing(experiment, runs)]


def _networks_drawing(experiment: Experiment, all_runs: Sequence[Run]) -> Drawing:
    runs = all_runs
    if len(runs) > MAX_NETWORKS:
        runs = [group[0] for group in experiment.by_setting(runs=runs)][:MAX_NETWORKS]
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
        f"have. n = {count(len(runs), 'trial')}.{shown}{missing_note(experiment)}"
    )

    def draw() -> Figure:
        figure = new_figure(page().wide_in, 0.5 * len(runs) + 0.75)
        axes = figure.subplots()
        for place, (run, network) in enumerate(zip(runs, networks, strict=True)):
            _draw_network(axes, space, network, place, _network_label(experiment, run))
        _name_stages(axes, space, len(runs))
        _op_legend(figure, networks)
        return figure

    table = tabulate(experiment, runs, _network_rows)
    return Drawing("networks", "Derived networks", caption, tuple(runs), draw, table)


def _network_rows(run: Run) -> Iterator[dict[str, str | int]]:
    """A row for each layer of the derived network."""
    assert run.architecture is not None
    for layer, op, width in run.architecture.layers:
        yield {"layer": f"{layer.stage + 1}.{layer.index + 1}", "operator": op.name, "mid_channels": width}


def _max_expansion(space: Space) -> float:
    """Largest ratio of mid channels to input channels that the space allows."""
    in_channels = 3  # for which all bounds are whole
    return max(op.width_interval(in_channels)[1] / in_channels for op in space.ops)


def _network_label(experiment: Experiment, run: Run) -> str:
    setting = experiment.label(run)
    latency_ms = run.metric("derived_latency_ms")
    seed = show_value(SEED, run.seed)
    return f"{setting}, {seed}\n{latency_ms:.4g} ms" if setting else f"{seed}\n{latency_ms:.4g} ms"


def _stage_starts(space: Space, gap: float = 0.5) -> list[float]:
    """Where each stage begins on an axis of one unit per layer."""
    widths = [spec.num_layers + gap for spec in space.stages]
    return [0.0, *np.cumsum(widths).tolist()]


def _draw_network(axes: Axes, space: Space, network: Architecture, place: int, label: str) -> None:
    floor = place + 0.92
    starts = _stage_starts(space)
    scale = -0.62 / _max_expansion(space)
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
        axes.text(left + _BOX / 2, floor + height - 0.02, str(width), ha="center", va="bottom", fontsize=4.6)
    axes.text(-0.4, place + 0.62, label, ha="right", va="center", fontsize=5.4, linespacing=1.2)


def _name_stages(axes: Axes, space: Space, num_rows: int) -> None:
    starts = _stage_starts(space)
    for number, (start, spec) in enumerate(zip(starts, space.stages, strict=False), start=1):
        resolution = space.stage_layers(number - 1)[0].resolution
        text = f"stage {number}\n{spec.out_channels} ch.\nfrom {resolution}²"
        axes.text(
            start + spec.num_layers / 2 - 0.1, num_rows + 0.08, text, ha="center", va="top", fontsize=5.4
        )
    # Labels take about a third of the width, at the left.
    axes.set_xlim(-0.36 * starts[-1], starts[-1])
    axes.set_ylim(num_rows + 0.62, 0)
    axes.axis("off")


def _op_legend(figure: Figure, networks: Sequence[Architecture]) -> None:
    present = {op.name for network in networks for _, op, _ in network.layers}
    order = dict.fromkeys(op.name for network in networks for op in get_space(network.space).ops)
    handles = [op_patch(name, name) for name in order if name in present]
    figure.legend(handles=handles, loc="outside upper center", ncols=8, handlelength=2.2, columnspacing=1.2)


def _space_drawing(experiment: Experiment, runs: Sequence[Run]) -> Drawing:
    space = runs[0].space
    skip = (
        " In the skip space there are no sinks; layers that keep the shape (thick outline) have identity "
        "as a further candidate."
        if any(run.config.get("depth") == "skip" for run in runs)
        else ""
    )
    caption = (
        f"The search space '{space.name}' ({space.resolution}x{space.resolution} input): a box is a "
        f"searchable layer with {len(space.ops)} candidate operators, each of searchable width. Arcs "
        f"lead from the depths that a stage may have to its sink. {len(space.layers)} searchable "
        f"layers.{skip}"
    )

    def draw() -> Figure:
        num_units = 7 + len(space.layers) + 0.8 * len(space.stages)
        figure = new_figure(page().wide_in, 0.08 + page().wide_in * _SPACE_HEIGHT / num_units)
        _draw_space(figure.subplots(), space)
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


def _draw_space(axes: Axes, space: Space) -> None:
    x = 0.0
    for name in (f"conv 3x3\n{space.stem_channels} ch.", f"MBConv\n{space.stem_block_channels} ch."):
        _draw_fixed_block(axes, x, name)
        _draw_arrow(axes, x + 1.5, x + 1.8)
        x += 1.8
    for stage in range(len(space.stages)):
        x = _draw_stage(axes, space, stage, x)
    _draw_fixed_block(axes, x, f"conv 1x1\n{space.head_channels} ch.")
    axes.set_xlim(-0.1, x + 1.6)
    axes.set_ylim(1.75 - _SPACE_HEIGHT, 1.75)
    axes.set_aspect("equal")
    axes.axis("off")


def _draw_stage(axes: Axes, space: Space, stage: int, start: float) -> float:
    """Draws the layers, the sink and the arcs of a stage; returns where the next one starts."""
    spec = space.stages[stage]
    sink = start + spec.num_layers + 0.25
    for layer in space.stage_layers(stage):
        left, outline = start + layer.index, 1.3 if layer.keeps_shape else 0.6
        box = Rectangle((left, 0), _BOX, 0.8, facecolor="white", edgecolor="#0072b2", lw=outline)
        axes.add_patch(box)
        name = f"{stage + 1}.{layer.index + 1}"
        axes.text(left + _BOX / 2, 0.4, name, ha="center", va="center", fontsize=4.6)
        is_last = layer.index + 1 == spec.num_layers
        _draw_arrow(axes, left + _BOX, sink - _SINK_RADIUS if is_last else left + 1)
        if space.min_depth(stage) <= layer.index + 1 < spec.num_layers:
            arc = FancyArrowPatch(
                (left + _BOX, 0.8),
                (sink, 0.62),
                connectionstyle="arc3,rad=-0.45",
                arrowstyle="-|>",
                mutation_scale=4,
                lw=0.5,
                color="#d55e00",
            )
            axes.add_patch(arc)
    axes.add_patch(Circle((sink, 0.4), _SINK_RADIUS, facecolor="white", edgecolor="#d55e00", lw=0.7))
    axes.text(sink, 0.385, "+", ha="center", va="center", fontsize=5, color="#d55e00")
    note = f"stage {stage + 1}: {spec.out_channels} ch.\nstride {spec.stride}, {spec.activation}"
    axes.text(start + spec.num_layers / 2, -0.15, note, ha="center", va="top", fontsize=4.8)
    _draw_arrow(axes, sink + _SINK_RADIUS, sink + 0.55)
    return sink + 0.55


def _draw_arrow(axes: Axes, start: float, end: float) -> None:
    """Draws the way from a block to the next one."""
    arrow = FancyArrowPatch(
        (start, 0.4),
        (end, 0.4),
        arrowstyle="-|>",
        mutation_scale=3.5,
        shrinkA=0,
        shrinkB=0,
        lw=0.5,
        color="#333333",
    )
    axes.add_patch(arrow)


def _draw_fixed_block(axes: Axes, x: float, name: str) -> None:
    axes.add_patch(Rectangle((x, 0), 1.5, 0.8, facecolor=LIGHT_GRAY, edgecolor="#333333", lw=0.5))
    axes.text(x + 0.75, 0.4, name, ha="center", va="center", fontsize=4.6)
