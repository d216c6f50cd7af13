"""The search space and derived networks as diagrams."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, Patch, Rectangle

from analysis.figures.ink.drawing import Drawing, NothingToDrawError, count
from analysis.figures.ink.panels import missing_note
from analysis.figures.ink.style import GREY, LIGHT_GREY, OP_STYLES, TWO_COLUMNS_IN, new_figure
from analysis.measures.collapse import CANDIDATE_NAMES
from analysis.measures.width import measure_widths
from analysis.reading.experiment import SEED, Experiment, Run
from analysis.reading.values import Value, show_value
from nas.space.macro_space import Space

MAX_NETWORKS = 16
_BOX = 0.8
_MAX_EXPANSION = 8
_SPACE_HEIGHT = 2.7


@dataclass(frozen=True)
class Block:
    """A kept layer of a derived network: operator index, mid channels, and these over its inputs."""

    op: int
    mid_channels: int
    expansion: float


def network_drawings(experiment: Experiment) -> list[Drawing]:
    """The space of the runs, and the networks that they derived."""
    if not experiment.searched:
        raise NothingToDrawError("no run with a trajectory")
    return [_space_drawing(experiment), _networks_drawing(experiment)]


def derived_blocks(run: Run) -> list[list[Block]]:
    """The derived network of a run's last epoch: the kept layers of each stage, in order."""
    trajectory = run.trajectory
    assert trajectory is not None
    widths = measure_widths(trajectory)
    stages: list[list[Block]] = [[] for _ in run.space.stages]
    for row, layer in enumerate(run.space.layers):
        op = int(trajectory.derived_op_EL[-1, row])
        if op >= 0:
            width = int(widths.mid_channels_EL[-1, row])
            stages[layer.stage].append(Block(op, width, float(widths.expansion_EL[-1, row])))
    return stages


def _networks_drawing(experiment: Experiment) -> Drawing:
    runs = experiment.searched
    if len(runs) > MAX_NETWORKS:
        first_seeds: dict[tuple[Value, ...], Run] = {}
        for run in runs:
            first_seeds.setdefault(run.setting(experiment.factors), run)
        runs = tuple(first_seeds.values())[:MAX_NETWORKS]
    shown = (
        f" Shown are {len(runs)} of {count(len(experiment.searched), 'trial')}, the first seed of each "
        "setting."
        if len(runs) < len(experiment.searched)
        else ""
    )
    caption = (
        "Derived networks at the end of the search. A box is a kept layer of its stage, its colour the "
        "operator, its height the mid channels over the input channels (full height: 8), the number its "
        "mid channels; dashed: layers that were not kept. n = "
        f"{count(len(runs), 'trial')}.{shown}{missing_note(experiment)}"
    )

    def draw() -> Figure:
        figure = new_figure(TWO_COLUMNS_IN, 0.5 * len(runs) + 0.75)
        axes = figure.subplots()
        space = runs[0].space
        for place, run in enumerate(runs):
            _draw_network(axes, space, derived_blocks(run), place, _network_label(experiment, run))
        _name_stages(axes, space, len(runs))
        _op_legend(figure, runs)
        return figure

    return Drawing("networks", "Derived networks", caption, tuple(runs), draw)


def _network_label(experiment: Experiment, run: Run) -> str:
    setting = experiment.label(run)
    latency_ms = run.metrics.get("derived_latency_ms", np.nan)
    seed = show_value(SEED, run.seed)
    return f"{setting}, {seed}\n{latency_ms:.4g} ms" if setting else f"{seed}\n{latency_ms:.4g} ms"


def _stage_starts(space: Space, gap: float = 0.5) -> list[float]:
    """Where each stage begins on an axis of one unit a layer."""
    widths = [spec.num_layers + gap for spec in space.stages]
    return [0.0, *np.cumsum(widths).tolist()]


def _draw_network(
    axes: Axes, space: Space, stages: Sequence[Sequence[Block]], place: int, label: str
) -> None:
    floor = place + 0.92
    for start, spec, blocks in zip(_stage_starts(space), space.stages, stages, strict=False):
        for index in range(spec.num_layers):
            left = start + index
            if index >= len(blocks):
                axes.add_patch(
                    Rectangle(
                        (left, floor), _BOX, -0.2, facecolor="none", edgecolor=GREY, lw=0.5, linestyle=":"
                    )
                )
                continue
            block = blocks[index]
            style = OP_STYLES[block.op]
            height = -0.62 * block.expansion / _MAX_EXPANSION
            axes.add_patch(
                Rectangle(
                    (left, floor),
                    _BOX,
                    height,
                    facecolor=style.color,
                    edgecolor=style.ink,
                    hatch=style.hatch,
                    lw=0,
                )
            )
            axes.add_patch(
                Rectangle((left, floor), _BOX, height, facecolor="none", edgecolor="#333333", lw=0.4)
            )
            axes.text(
                left + _BOX / 2,
                floor + height - 0.02,
                str(block.mid_channels),
                ha="center",
                va="bottom",
                fontsize=4.6,
            )
    axes.text(-0.4, place + 0.62, label, ha="right", va="center", fontsize=5.4, linespacing=1.2)


def _name_stages(axes: Axes, space: Space, num_rows: int) -> None:
    starts = _stage_starts(space)
    for number, (start, spec) in enumerate(zip(starts, space.stages, strict=False), start=1):
        resolution = space.stage_layers(number - 1)[0].resolution
        text = f"stage {number}\n{spec.out_channels} ch.\nfrom {resolution}²"
        axes.text(
            start + spec.num_layers / 2 - 0.1, num_rows + 0.08, text, ha="center", va="top", fontsize=5.4
        )
    # Room for the labels at the left, about a third of the width.
    axes.set_xlim(-0.36 * starts[-1], starts[-1])
    axes.set_ylim(num_rows + 0.62, 0)
    axes.axis("off")


def _op_legend(figure: Figure, runs: Sequence[Run]) -> None:
    present = sorted({block.op for run in runs for stage in derived_blocks(run) for block in stage})
    handles = [
        Patch(
            facecolor=OP_STYLES[op].color,
            edgecolor=OP_STYLES[op].ink,
            hatch=OP_STYLES[op].hatch,
            lw=0,
            label=CANDIDATE_NAMES[op],
        )
        for op in present
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=8, handlelength=2.2, columnspacing=1.2)


def _space_drawing(experiment: Experiment) -> Drawing:
    space = experiment.searched[0].space
    has_skip = any(run.config.get("depth") == "skip" for run in experiment.searched)
    skip = (
        " In the skip space there are no sinks; layers that keep the shape (thick outline) have identity "
        "as a ninth candidate."
        if has_skip
        else ""
    )
    caption = (
        f"The search space '{space.name}' ({space.resolution}x{space.resolution} input): a box is a "
        f"searchable layer with {len(space.ops)} candidate operators, each of searchable width; arcs "
        f"lead from the depths that a stage may have to its sink. {len(space.layers)} searchable "
        f"layers.{skip}"
    )

    def draw() -> Figure:
        num_units = 7 + len(space.layers) + 0.8 * len(space.stages)
        figure = new_figure(TWO_COLUMNS_IN, TWO_COLUMNS_IN * _SPACE_HEIGHT / num_units)
        _draw_space(figure.subplots(), space)
        return figure

    return Drawing("space", "Search space", caption, experiment.searched[:1], draw)


def _draw_space(axes: Axes, space: Space) -> None:
    x = 0.0
    for name in (f"conv 3x3\n{space.stem_channels} ch.", f"MBConv\n{space.stem_block_channels} ch."):
        _draw_fixed_block(axes, x, name)
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
    axes.add_patch(Circle((sink, 0.4), 0.2, facecolor="white", edgecolor="#d55e00", lw=0.7))
    axes.text(sink, 0.385, "+", ha="center", va="center", fontsize=5, color="#d55e00")
    note = f"stage {stage + 1}: {spec.out_channels} ch.\nstride {spec.stride}, {spec.activation}"
    axes.text(start + spec.num_layers / 2, -0.15, note, ha="center", va="top", fontsize=4.8)
    return sink + 0.55


def _draw_fixed_block(axes: Axes, x: float, name: str) -> None:
    axes.add_patch(Rectangle((x, 0), 1.5, 0.8, facecolor=LIGHT_GREY, edgecolor="#333333", lw=0.5))
    axes.text(x + 0.75, 0.4, name, ha="center", va="center", fontsize=4.6)
