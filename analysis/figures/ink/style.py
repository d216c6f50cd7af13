"""One style for all figures: sizes, fonts, and marks that survive grey print and colour blindness.

Operators: hue is the kernel, darkness the expansion, hatching squeeze-and-excitation; so the eight
differ in grey, too. Lines: colour, dashes and marker change together.
"""

from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from analysis.measures.collapse import CANDIDATE_NAMES
from nas.space.operators import OPERATORS, SKIP_OP_NAME

ONE_COLUMN_IN = 3.5
TWO_COLUMNS_IN = 7.1
MAX_HEIGHT_IN = 9.4

GREY = "#8a8a8a"
LIGHT_GREY = "#e6e6e6"

# `Any`, since the keys that matplotlib's stubs ask for are one long literal.
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


@dataclass(frozen=True)
class OpStyle:
    """How an operator is drawn: fill, paler fill, hatch and its colour, a code of a few letters."""

    color: str
    faded: str
    hatch: str
    ink: str
    code: str


def op_style(name: str) -> OpStyle:
    """How a candidate operator is drawn."""
    if name == SKIP_OP_NAME:
        return OpStyle("#d0d0d0", "#ffffff", "xxxxx", "#555555", "skip")
    op = OPERATORS[name]
    color, ink = {
        (3, 3): ("#aad4f2", "#10324a"),
        (5, 3): ("#f2a24a", "#3d2204"),
        (3, 6): ("#2a76b4", "#ffffff"),
        (5, 6): ("#8c2d0c", "#ffffff"),
    }[op.kernel_size, op.expansion]
    code = f"{op.kernel_size}·{op.expansion}{'s' if op.has_se else ''}"
    return OpStyle(color, _mix_with_white(color, 0.5), "/////" if op.has_se else "", ink, code)


def _mix_with_white(color: str, share: float) -> str:
    red, green, blue = (share + (1 - share) * channel for channel in to_rgb(color))
    return to_hex((red, green, blue))


OP_STYLES: tuple[OpStyle, ...] = tuple(op_style(name) for name in CANDIDATE_NAMES)


@dataclass(frozen=True)
class LineStyle:
    """How one of several courses is drawn."""

    color: str
    dashes: Any
    marker: str


# Okabe and Ito's palette, in an order whose neighbours differ in lightness.
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
    """The style of the index-th course; they repeat after eight."""
    return LINE_STYLES[index % len(LINE_STYLES)]


def new_figure(width_in: float, height_in: float) -> Figure:
    """An empty figure that lays itself out."""
    engine = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0.02, hspace=0.02)
    return Figure(figsize=(width_in, height_in), layout=engine)


def mark_warmup(axes: Axes, last_epoch: int) -> None:
    """Shades the epochs in which no architecture parameter moves."""
    if last_epoch >= 1:
        axes.axvspan(0.5, last_epoch + 0.5, color=LIGHT_GREY, lw=0, zorder=0)


def write_in(axes: Axes, text: str) -> None:
    """An empty panel that says why."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(visible=True, linestyle=(0, (3, 3)), color=GREY)
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="#444444", wrap=True)
