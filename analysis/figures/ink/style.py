"""One style for all figures: sizes, fonts, and marks that survive gray print and color blindness.

Operators: the hue shows the kernel, the darkness the expansion, hatching squeeze-and-excitation.
Lines: color, dashes and marker change together.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from matplotlib.text import Text

from nas.space.operators import OPERATORS, SKIP_OP_NAME

ONE_COLUMN_IN = 3.5
TWO_COLUMNS_IN = 7.1
MAX_HEIGHT_IN = 9.4

GRAY = "#8a8a8a"
LIGHT_GRAY = "#e6e6e6"

# `Any`, because matplotlib's stubs declare the keys as one long literal.
STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "lines.markersize": 3.5,
    "hatch.linewidth": 0.5,
    "figure.dpi": 100,
    "savefig.dpi": 300,
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "tfnas",
}


@contextmanager
def our_style() -> Iterator[None]:
    """Draws in the one style for all figures, whatever a person's `matplotlibrc` asks for."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


@dataclass(frozen=True)
class OpStyle:
    """How an operator is drawn: fill, paler fill, hatch and its color, a code of a few letters."""

    color: str
    faded: str
    hatch: str
    ink: str
    code: str


_HUES = (
    ("#d9bfe6", "#5b2a86"),
    ("#aad4f2", "#2a76b4"),
    ("#f2a24a", "#8c2d0c"),
    ("#b5dfae", "#1f6b3a"),
    ("#f0b8cf", "#8f1f55"),
)
"""Colors of expansions 3 and 6 for the kernels 1, 3, 5, 7, 9; larger kernels use them again."""


@cache
def op_style(name: str) -> OpStyle:
    """Returns how a candidate operator is drawn, whatever its kernel and expansion."""
    if name == SKIP_OP_NAME:
        return OpStyle("#d0d0d0", "#ffffff", "xxxxx", "#555555", "skip")
    op = OPERATORS[name]
    color = _expansion_color(*_HUES[op.kernel_size // 2 % len(_HUES)], op.expansion)
    is_light = sum(to_rgb(color)) / 3 > 0.5
    return OpStyle(
        color,
        faded=_mix(color, "#ffffff", 0.5),
        hatch="/////" if op.has_se else "",
        ink=_mix(color, "#000000", 0.75) if is_light else "#ffffff",
        code=f"{op.kernel_size}·{op.expansion}{'s' if op.has_se else ''}",
    )


def _expansion_color(light: str, dark: str, expansion: float) -> str:
    """The light color at expansion 3, the dark one at 6; lighter below, darker above."""
    darkness = (expansion - 3) / 3
    if darkness < 0:
        return _mix(light, "#ffffff", -darkness)
    if darkness <= 1:
        return _mix(light, dark, darkness)
    return _mix(dark, "#000000", 1 - 1 / darkness)


def _mix(color: str, other: str, share: float) -> str:
    """A color with a share of another one."""
    red, green, blue = (
        (1 - share) * a + share * b for a, b in zip(to_rgb(color), to_rgb(other), strict=True)
    )
    return to_hex((red, green, blue))


def op_patch(name: str, label: str) -> Patch:
    """Returns an operator's entry in a legend."""
    style = op_style(name)
    return Patch(facecolor=style.color, edgecolor=style.ink, hatch=style.hatch, lw=0, label=label)


@dataclass(frozen=True)
class LineStyle:
    """How one of several lines is drawn."""

    color: str
    dashes: Any
    marker: str


# Okabe and Ito's palette, ordered so that neighbors differ in lightness.
LINE_STYLES: tuple[LineStyle, ...] = (
    LineStyle("#d55e00", (0, (4, 1.5)), "o"),
    LineStyle("#0072b2", "-", "s"),
    LineStyle("#009e73", (0, (1, 1)), "^"),
    LineStyle("#111111", (0, (5, 1, 1, 1)), "D"),
    LineStyle("#cc79a7", (0, (2, 1)), "v"),
    LineStyle("#e69f00", (0, (6, 2, 2, 2)), "P"),
    LineStyle("#56b4e9", "-", "X"),
    LineStyle("#7a7a7a", (0, (3, 1, 1, 1, 1, 1)), "<"),
)


def line_style(index: int) -> LineStyle:
    """Returns the style of the index-th line; styles repeat after eight."""
    return LINE_STYLES[index % len(LINE_STYLES)]


def new_figure(width_in: float, height_in: float) -> Figure:
    """Returns an empty figure with automatic layout."""
    engine = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0.02, hspace=0.02)
    return Figure(figsize=(width_in, height_in), layout=engine)


def keep_names_plain(figure: Figure) -> None:
    """Shows a name with dollar signs as it is; only the numbers at the axes of a figure are formulas."""
    axes = [axis for one in figure.axes for axis in (one.xaxis, one.yaxis)]
    numbers = {text for axis in axes for text in axis.findobj(Text) if text is not axis.label}
    for text in figure.findobj(Text):
        if text not in numbers:
            text.set_parse_math(False)


def mark_warmup(axes: Axes, last_epoch: int) -> None:
    """Shades the epochs in which no architecture parameter moves."""
    if last_epoch >= 1:
        axes.axvspan(0.5, last_epoch + 0.5, color=LIGHT_GRAY, lw=0, zorder=0)


def write_in(axes: Axes, text: str) -> None:
    """Leaves a panel empty, with a text that says why."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(visible=True, linestyle=(0, (3, 3)), color=GRAY)
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="#444444", wrap=True)
