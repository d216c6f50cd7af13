"""Operator collapse: which operator leads each layer and from when on, and how many layers lock in by when.

Shapes: E epochs, L layers, N seeds, T steps from the first joint epoch to the last.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from analysis.figures.ink.drawing import Drawing, tabulate
from analysis.figures.ink.page import page
from analysis.figures.ink.panels import choose_settings
from analysis.figures.ink.setting_styles import setting_styles
from analysis.figures.ink.style import (
    GRAY,
    LineStyle,
    fit_lines,
    mark_narrow_warmup,
    new_figure,
    op_patch,
    op_style,
)
from analysis.measures.collapse import (
    EARLY,
    NO_LEADER,
    NOT_COUNTED,
    Collapse,
    locked_in_by_step,
    measure_collapse,
)
from analysis.reading.captions import count, left_out_note, missing_note, name_seeds
from analysis.reading.experiment import Experiment
from analysis.reading.nothing_to_draw import for_grids
from analysis.reading.run import SEED, Run
from analysis.reading.values import show_value
from nas.space.macro_space import LayerSpec
from nas.space.operators import SKIP_OP_NAME

_MAP_IN = 2.0
"""A map is not narrower than this."""
_MAX_COURSES = 8
_ROW_IN = 0.112
_SUMMARY_IN = 1.45
"""Height of the summary, unless its legend is higher."""
_LEGEND_IN = 0.5
_LINE_IN, _GAP_IN = 0.1, 0.045
"""Height of a line of text, and of the gap between two entries of a legend."""
_MARKED_EVERY = 4
"""Steps from one marker of a line to the next."""
_THIN, _THICK = 0.3, 0.86
_TEXT_PT = 6
_HATCH = "//////"
"""Where identity leads a layer that is locked in on an operator."""


@dataclass(frozen=True)
class CollapseMap:
    """One search: what led each of its layers, and where they locked in."""

    title: str
    run: Run
    collapse: Collapse
    layers: tuple[LayerSpec, ...]


@dataclass(frozen=True)
class LockInCourse:
    """A setting: how many of its layers were locked in after each step, over all seeds.

    Attributes:
        locked_NT: shares of the layers that count, after 0, 1, ... of the joint epochs.
        early_N: what the claim about collapse compares, the share that locks in within the first quarter.
    """

    label: str
    style: LineStyle
    locked_NT: NDArray[np.float64]
    early_N: NDArray[np.float64]


@for_grids
def collapse_drawings(experiment: Experiment) -> list[Drawing]:
    """Draws the layers of one search for each setting, and a summary of all seeds."""
    runs = experiment.searched_with("alpha_ELO")
    settings = side_by_side(experiment, runs)
    shown = choose_settings(experiment, settings, _MAX_COURSES)
    drawn = tuple(run for setting in shown for run in setting)
    numbers = {run.run_id: measure_collapse(run.trajectory) for run in drawn if run.trajectory is not None}
    courses = lock_in_courses(experiment, shown, numbers)
    panel_in, summary_in = _panel_in(experiment, shown), _summary_in(courses)
    num_rows = max(1, int((page().max_height_in - summary_in - _LEGEND_IN) // panel_in))
    mapped = choose_settings(experiment, shown, _num_columns() * num_rows)
    maps = collapse_maps(experiment, mapped, numbers)
    seeds = name_seeds(experiment)
    parts = {"above": len(maps), "below": len(shown)}
    cut = [
        f"{num} of {len(settings)} settings {where}" for where, num in parts.items() if num < len(settings)
    ]
    some = f" Shown are {' and '.join(cut)}." if cut else ""
    others = left_out_note(experiment.searched, runs, "whose method has no alphas")
    caption = (
        f"Operator collapse. Above: {_name_seeds(maps)}. Each row is a searchable layer (stage.layer), its "
        "color the most probable candidate at the end of the epoch. A row is thin while its leading "
        "operator still changes, and thick from the epoch on in which the layer locks in, that is, from "
        "which its operator no longer changes; on the right: on which operator, and from which epoch on. "
        "This ignores identity (skip): where it leads, a thick row has the color of the operator that the "
        "layer locks in on, hatched. A dash marks layers that do not count: "
        "the last network does not keep them, or their operators have no leader or never moved. Gray strip: "
        f"warm-up, not to scale.{_some_layers(experiment, runs)} Below: share of the layers that count which "
        f"are locked in, over {seeds} (thin: each seed; thick: their mean). What is locked in at the dashed "
        "line, after a quarter of the joint epochs, is locked in early; its mean is in the legend. n = "
        f"{count(len(drawn), 'trial')}.{some}{others}{missing_note(experiment)}"
    )

    def draw() -> Figure:
        return _draw(maps, courses, panel_in, summary_in, seeds)

    table = tabulate(experiment, drawn, lambda run: _rows(run, numbers[run.run_id]))
    return [Drawing("collapse", "Operator collapse", caption, drawn, draw, table)]


def _rows(run: Run, collapse: Collapse) -> Iterator[dict[str, Any]]:
    """A row for each box of the run's map: consecutive epochs with one leader, locked in or not."""
    names, layers = run.space.candidate_names, run.space.layers
    assert run.trajectory is not None
    epoch_E = run.trajectory.epoch_E
    boxes = [(box, op) for op, of_op in leading_boxes(epoch_E, collapse).items() for box in of_op]
    for box, op in sorted(boxes, key=lambda found: (found[0].row, found[0].first_epoch)):
        lock_in, operator = collapse.lock_in_epoch_L[box.row], collapse.operator_L[box.row]
        is_counted = lock_in != NOT_COUNTED
        yield {
            "layer": layers[box.row].label,
            "first_epoch": box.first_epoch,
            "last_epoch": box.last_epoch,
            "leader": names[op],
            "probability_at_last_epoch": collapse.probability_EL[epoch_E == box.last_epoch, box.row][0],
            "is_locked_in": box.is_locked_in,
            "locked_in_on": names[operator] if is_counted else pd.NA,
            "locked_in_from": lock_in if is_counted else pd.NA,
            "locked_early_share": collapse.locked_early_share,
        }


def side_by_side(experiment: Experiment, runs: Sequence[Run]) -> list[list[Run]]:
    """Returns the settings in an order in which those that differ in sampling only follow each other."""
    groups = experiment.by_setting(experiment.other_factors("sampling"), runs)
    return [setting for group in groups for setting in experiment.by_setting(runs=group)]


def collapse_maps(
    experiment: Experiment, settings: Sequence[Sequence[Run]], numbers: dict[str, Collapse]
) -> list[CollapseMap]:
    """Returns one search of each setting: of the seed that most settings have, else of its first."""
    common = Counter(run.seed for setting in settings for run in setting).most_common(1)[0][0]
    maps = []
    for setting in settings:
        run = next((run for run in setting if run.seed == common), setting[0])
        rows = _rows_shown(experiment, run)
        layers = tuple(run.space.layers[row] for row in rows)
        maps.append(CollapseMap(_title(experiment, run), run, numbers[run.run_id].of_layers(rows), layers))
    return maps


def _title(experiment: Experiment, run: Run) -> str:
    return ", ".join(filter(None, (experiment.label(run), show_value(SEED, run.seed))))


def _title_lines(title: str) -> list[str]:
    """The title of a map in lines that fit above it."""
    return fit_lines(title, page().text_in / _num_columns() - 0.5, _TEXT_PT)


def _panel_in(experiment: Experiment, settings: Sequence[Sequence[Run]]) -> float:
    """Height of a map: of its title, its rows and its axis."""
    num_rows = max(len(_rows_shown(experiment, run)) for setting in settings for run in setting)
    num_lines = max(len(_title_lines(_title(experiment, run))) for setting in settings for run in setting)
    return _ROW_IN * num_rows + _LINE_IN * num_lines + 0.35


def _some_layers(experiment: Experiment, runs: Sequence[Run]) -> str:
    """A sentence for the caption where not all layers are shown."""
    num_shown = max(len(_rows_shown(experiment, run)) for run in runs)
    num_layers = max(len(run.space.layers) for run in runs)
    if num_shown == num_layers:
        return ""
    return f" Above are {num_shown} of {num_layers} layers; below, all of them are counted."


def _rows_shown(experiment: Experiment, run: Run) -> list[int]:
    """Indices of the layers that are to be shown; all, unless the experiment says which."""
    wanted, layers = experiment.shown.layers, run.space.layers
    return [row for row, layer in enumerate(layers) if not wanted or layer.label in wanted]


def lock_in_courses(
    experiment: Experiment, settings: Sequence[Sequence[Run]], numbers: dict[str, Collapse]
) -> list[LockInCourse]:
    """Returns how many layers are locked in by when, a line for each setting that has layers that count."""
    courses = []
    fields, styles = setting_styles(experiment, experiment.factors)
    for setting in settings:
        found = [numbers[run.run_id] for run in setting]
        locked_NT = np.stack(
            [locked_in_by_step(run.trajectory, numbers[run.run_id]) for run in setting if run.trajectory]
        )
        early_N = np.array([one.locked_early_share for one in found])
        is_known_N = np.isfinite(early_N)
        if is_known_N.any():
            label = experiment.label(setting[0]) or experiment.name
            courses.append(
                LockInCourse(
                    label, styles[setting[0].setting(fields)], locked_NT[is_known_N], early_N[is_known_N]
                )
            )
    return courses


def _name_seeds(maps: Sequence[CollapseMap]) -> str:
    seeds = {one.run.seed for one in maps}
    if len(seeds) == 1:
        return f"one search of each setting ({show_value(SEED, maps[0].run.seed)})"
    return "one search of each setting"


def _num_columns() -> int:
    return max(1, int(page().text_in // _MAP_IN))


def _draw(
    maps: Sequence[CollapseMap],
    courses: Sequence[LockInCourse],
    panel_in: float,
    summary_in: float,
    seeds: str,
) -> Figure:
    num_columns = min(_num_columns(), len(maps))
    num_rows = -(-len(maps) // num_columns)
    figure = new_figure(page().text_in, panel_in * num_rows + summary_in + _LEGEND_IN)
    # Nested, so that the legend of the summary does not narrow the maps.
    parts = figure.add_gridspec(2, 1, height_ratios=[panel_in * num_rows, summary_in or 0.01])
    grid = parts[0].subgridspec(num_rows, num_columns)
    for place, one in enumerate(maps):
        row, column = divmod(place, num_columns)
        axes = figure.add_subplot(grid[row, column])
        _draw_map(axes, one)
        if not column:
            axes.set_ylabel("layer")
        if place + num_columns >= len(maps):
            axes.set_xlabel("epoch")
    if courses:
        _draw_summary(figure.add_subplot(parts[1].subgridspec(1, 1)[0]), courses, seeds)
    _legend(figure, _operators(maps))
    return figure


def _draw_map(axes: Axes, one: CollapseMap) -> None:
    trajectory, layers = one.run.trajectory, one.layers
    assert trajectory is not None
    axes.set_title("\n".join(_title_lines(one.title)), loc="left", fontsize=_TEXT_PT)
    mark_narrow_warmup(axes, int((~trajectory.is_joint_E).sum()), int(trajectory.epoch_E[-1]))
    axes.set_ylim(len(layers), 0)
    names = one.run.space.candidate_names
    # One collection per operator, not one artist per box.
    for op, boxes in leading_boxes(trajectory.epoch_E, one.collapse).items():
        hatched = [box for box in boxes if box.is_locked_in and names[op] == SKIP_OP_NAME]
        plain = [box for box in boxes if box not in hatched]
        _add_boxes(axes, plain, [op_style(names[op]).color] * len(plain))
        locked = [names[one.collapse.operator_L[box.row]] for box in hatched]
        _add_boxes(axes, hatched, [op_style(name).color for name in locked], edgecolor="white", hatch=_HATCH)
    for row, epoch in enumerate(one.collapse.lock_in_epoch_L):
        text, color = "–", GRAY
        if epoch != NOT_COUNTED:
            text, color = f"{op_style(names[one.collapse.operator_L[row]]).code} from {epoch}", "black"
        axes.text(
            1.02,
            row + 0.5,
            text,
            color=color,
            transform=axes.get_yaxis_transform(),
            va="center" if epoch == NOT_COUNTED else "center_baseline",
            fontsize=_TEXT_PT,
        )
        if row and layers[row].stage != layers[row - 1].stage:
            axes.axhline(row, color="black", lw=0.5)
    axes.set_yticks(np.arange(len(layers)) + 0.5, [layer.label for layer in layers])
    axes.tick_params(axis="y", length=0, labelsize=_TEXT_PT)
    axes.tick_params(axis="x", labelsize=_TEXT_PT)


def _add_boxes(
    axes: Axes, boxes: Sequence["LeaderBox"], colors: Sequence[str], edgecolor: str = "none", hatch: str = ""
) -> None:
    corners = [box.corners for box in boxes]
    axes.add_collection(
        PolyCollection(corners, facecolor=colors, edgecolor=edgecolor, hatch=hatch, linewidth=0)
    )


@dataclass(frozen=True)
class LeaderBox:
    """Consecutive epochs in which one candidate led a layer, all of them before or after its lock-in."""

    row: int
    first_epoch: int
    last_epoch: int
    is_locked_in: bool

    @property
    def corners(self) -> list[tuple[float, float]]:
        """Where it is drawn: thin before the lock-in."""
        left, right = self.first_epoch - 0.5, self.last_epoch + 0.5
        half = (_THICK if self.is_locked_in else _THIN) / 2
        top, bottom = self.row + 0.5 - half, self.row + 0.5 + half
        return [(left, top), (right, top), (right, bottom), (left, bottom)]


def leading_boxes(epoch_E: NDArray[np.int64], collapse: Collapse) -> dict[int, list[LeaderBox]]:
    """Returns the boxes of all layers by the index of the leading candidate."""
    boxes: dict[int, list[LeaderBox]] = {}
    for row, leader_E in enumerate(collapse.leader_EL.T):
        lock_in = collapse.lock_in_epoch_L[row]
        is_locked_E = (epoch_E >= lock_in) & (lock_in != NOT_COUNTED)
        changes = np.flatnonzero((np.diff(leader_E) != 0) | np.diff(is_locked_E)) + 1
        for where in np.split(np.arange(len(leader_E)), changes):
            leader = int(leader_E[where[0]])
            if leader != NO_LEADER:
                first, last = int(epoch_E[where[0]]), int(epoch_E[where[-1]])
                box = LeaderBox(row, first, last, bool(is_locked_E[where[0]]))
                boxes.setdefault(leader, []).append(box)
    return boxes


def _course_lines(course: LockInCourse) -> list[str]:
    """The entry of a course in the legend, in lines that fit beside the summary."""
    text = f"{course.label}: {course.early_N.mean():.2f} early, n\u00a0=\u00a0{len(course.early_N)}"
    return fit_lines(text, 0.43 * page().text_in, _TEXT_PT)


def _summary_in(courses: Sequence[LockInCourse]) -> float:
    """Height of the summary, which is as high as its legend at least; 0 without courses."""
    legend_in = sum(_LINE_IN * len(_course_lines(course)) + _GAP_IN for course in courses)
    return max(_SUMMARY_IN, legend_in + 0.15) if courses else 0.0


def _draw_summary(axes: Axes, courses: Sequence[LockInCourse], seeds: str) -> None:
    handles = []
    for place, course in enumerate(courses):
        style = course.style
        x_T = np.linspace(0, 100, course.locked_NT.shape[1])
        if len(course.locked_NT) > 1:
            axes.plot(
                x_T,
                course.locked_NT.T,
                color=style.color,
                lw=0.4,
                alpha=0.6,
                drawstyle="steps-post",
                zorder=1,
            )
        look: Any = {
            "color": style.color,
            "linestyle": style.dashes,
            "marker": style.marker,
            "markersize": 3,
            "markeredgecolor": "white",
            "markeredgewidth": 0.3,
        }
        # Each line has its markers at other steps, so that none hides those of another one.
        markers = (place % _MARKED_EVERY, _MARKED_EVERY)
        mean_T = course.locked_NT.mean(axis=0)
        axes.plot(x_T, mean_T, drawstyle="steps-post", markevery=markers, **look)
        handles.append(Line2D([], [], label="\n".join(_course_lines(course)), **look))
    axes.axvline(100 * EARLY, color="black", lw=0.6, ls=(0, (4, 2)))
    axes.text(100 * EARLY, 1.04, "early", fontsize=_TEXT_PT, ha="left", va="bottom")
    axes.set(xlim=(0, 100), ylim=(0, 1.02), xlabel="joint epochs (%)", ylabel="layers locked in")
    axes.set_title(seeds, loc="right", fontsize=_TEXT_PT)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.tick_params(labelsize=_TEXT_PT)
    axes.legend(
        handles=handles, loc="center left", bbox_to_anchor=(1.02, 0.5), handlelength=3.6, fontsize=_TEXT_PT
    )


def _operators(maps: Sequence[CollapseMap]) -> list[str]:
    """Every operator that led a layer or that one locked in on, in the order of the space."""
    shown = {
        one.run.space.candidate_names[op]
        for one in maps
        for op in {*one.collapse.leader_EL.flat, *_locked_in_on(one.collapse)} - {NO_LEADER}
    }
    names = dict.fromkeys(name for one in maps for name in one.run.space.candidate_names)
    return sorted(shown, key=list(names).index)


def _locked_in_on(collapse: Collapse) -> list[int]:
    """Operators of the layers that count."""
    return [int(op) for op in collapse.operator_L[collapse.lock_in_epoch_L != NOT_COUNTED]]


def _legend(figure: Figure, ops: Sequence[str]) -> None:
    handles = [op_patch(op, op if op == SKIP_OP_NAME else f"{op} ({op_style(op).code})") for op in ops]
    if handles:
        figure.legend(
            handles=handles,
            loc="outside upper center",
            ncols=4 if len(handles) <= 8 else 3,
            handlelength=1.6,
            columnspacing=1.2,
            fontsize=_TEXT_PT,
        )
