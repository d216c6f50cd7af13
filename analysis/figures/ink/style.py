"""One style for all figures: sizes, fonts, and marks that survive gray print and color blindness.

Operators: the hue shows the kernel and squeeze-and-excitation, the darkness the expansion.
Lines: color, dashes and marker change together.
"""

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.textpath import TextPath
from matplotlib.ticker import MaxNLocator

from analysis.figures.ink.page import page
from nas.space.operators import OPERATORS, SKIP_OP_NAME

STYLE_VERSION = 3
"""Raise it when figures look different; `tfnas figures --check` then finds older ones."""

GRAY = "#8a8a8a"
LIGHT_GRAY = "#e6e6e6"

# `Any`, because matplotlib's stubs declare the keys as one long literal.
STYLE: Any = {
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
    "figure.dpi": 100,
    "savefig.dpi": 300,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "tfnas",
}


_MIN_CHARS = 8
"""Lines are not made shorter than this, however narrow their place is."""


@contextmanager
def our_style() -> Iterator[None]:
    """Draws in the one style for all figures of a page, whatever a person's `matplotlibrc` asks for."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE | page().fonts)
        yield


@dataclass(frozen=True)
class OpStyle:
    """How an operator is drawn: its color, and a code of a few letters."""

    color: str
    code: str


_HUES = (
    ("#cfc6bd", "#5e5148"),
    ("#aad4f2", "#2a76b4"),
    ("#f8b878", "#b3480c"),
    ("#c9e5f0", "#2d7f8f"),
    ("#d8d8d8", "#4a4a4a"),
)
"""Colors of expansions 3 and 6 for the kernels 1, 3, 5, 7, 9; larger kernels use them again."""

_SE_HUES = (
    ("#e6d3a3", "#80661a"),
    ("#b5dfae", "#1f7a3c"),
    ("#dcbfea", "#6a2f91"),
    ("#f0b8cf", "#8f1f55"),
    ("#c6c9f0", "#3a3f9a"),
)
"""The same with squeeze-and-excitation."""


@cache
def op_style(name: str) -> OpStyle:
    """Returns how a candidate operator is drawn, whatever its kernel and expansion."""
    if name == SKIP_OP_NAME:
        return OpStyle("#c4c4c4", "skip")
    op = OPERATORS[name]
    hues = _SE_HUES if op.has_se else _HUES
    color = _expansion_color(*hues[op.kernel_size // 2 % len(hues)], op.expansion)
    return OpStyle(
        color,
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
    return Patch(facecolor=op_style(name).color, lw=0, label=label)


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


def mark_narrow_warmup(axes: Axes, num_warmup: int, last_epoch: int) -> None:
    """Sets the axis of epochs to those after the warm-up, with a gray strip for it, whatever its length."""
    num_joint = last_epoch - num_warmup
    strip = max(0.3, 0.05 * num_joint) if num_warmup else 0.0
    axes.axvspan(num_warmup + 0.5 - strip, num_warmup + 0.5, color=LIGHT_GRAY, lw=0, zorder=0)
    axes.set_xlim(num_warmup + 0.5 - strip, last_epoch + 0.5)
    ticks = MaxNLocator(5, integer=True).tick_values(num_warmup + 1, last_epoch)
    axes.set_xticks([tick for tick in ticks if num_warmup < tick <= last_epoch])


def fit_lines(text: str, width_in: float, size_pt: float) -> list[str]:
    """Breaks a text into lines that are no wider than this, between words if it can."""
    lines = [text]
    for num_chars in range(len(text), _MIN_CHARS - 1, -1):
        lines = textwrap.wrap(text, num_chars)
        if all(text_width_in(line, size_pt) <= width_in for line in lines):
            break
    return lines


def text_width_in(text: str, size_pt: float) -> float:
    """How wide a line of text is in the page's font."""
    return _width_in(text, size_pt, page().font)


@cache
def _width_in(text: str, size_pt: float, font: str) -> float:
    # A dollar sign would begin a formula, and is as wide as an S.
    path = TextPath((0, 0), text.replace("$", "S"), size=size_pt, prop=FontProperties(family=font))
    return float(path.get_extents().width) / 72


def write_in(axes: Axes, text: str) -> None:
    """Leaves a panel empty, with a text that says why."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(visible=True, linestyle=(0, (3, 3)), color=GRAY)
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="#444444", wrap=True)
