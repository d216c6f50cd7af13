"""The page that figures are drawn for: how wide they are, and in which font."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

from tueplots import figsizes

# matplotlib has the first font of each. Where it is missing, SVG files show the next one, as wide.
_SANS = {"font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans", "Verdana"]}
_SERIF = {
    "font.family": "serif",
    "font.serif": ["STIXGeneral", "Times New Roman"],
    "mathtext.fontset": "stix",
}


@dataclass(frozen=True)
class Page:
    """Sizes of a page, and the font of its figures.

    Attributes:
        narrow_in: width of a figure with one panel: a column.
        wide_in: width of a figure that needs the whole page.
        panels_in: width of a figure whose panels can stand below each other.
        text_in: width of a figure that is not wider than the text of a page without columns.
        max_height_in: what a page holds, and leaves room for a caption.
        has_columns: two of them; otherwise the text is `wide_in`.
        fonts: settings of matplotlib.
    """

    narrow_in: float
    wide_in: float
    panels_in: float
    text_in: float
    max_height_in: float
    has_columns: bool = True
    fonts: Any = field(default_factory=_SERIF.copy)

    @property
    def font(self) -> str:
        """The name of the font."""
        return str(self.fonts[f"font.{self.fonts['font.family']}"][0])

    def in_columns(self) -> "Page":
        """The same page, with every figure that can be so narrow in one of its columns."""
        return replace(self, panels_in=self.narrow_in, text_in=self.narrow_in)


def _width_in(size: dict[str, tuple[float, float]]) -> float:
    return size["figure.figsize"][0]


def _with_two_columns(column_in: float, page_in: float, max_height_in: float) -> Page:
    return Page(column_in, page_in, page_in, page_in, max_height_in)


def _without_columns(text_in: float, max_height_in: float) -> Page:
    return Page(min(3.5, text_in), text_in, text_in, text_in, max_height_in, has_columns=False)


ANY_PAGE = Page(3.5, 7.1, 7.1, 4.8, 7.4, fonts=_SANS)
"""Fits a page of two columns, and what is not wide also one of LNCS."""

PAGES = {
    "neurips": _without_columns(_width_in(figsizes.neurips2024()), 8.0),
    "cvpr": _with_two_columns(_width_in(figsizes.cvpr2024_half()), _width_in(figsizes.cvpr2024_full()), 7.9),
    # IEEEtran's columns of 252 pt and text of 516 pt, which tueplots lacks.
    "ieee": _with_two_columns(252 / 72.27, 516 / 72.27, 8.0),
    "springer": _without_columns(_width_in(figsizes.eccv2024()), 6.4),
}
"""Pages by publisher, for `tfnas figures --style`."""

_page: ContextVar[Page] = ContextVar("page", default=ANY_PAGE)


def page() -> Page:
    """The page that is drawn for."""
    return _page.get()


@contextmanager
def drawing_for(wanted: Page) -> Iterator[None]:
    """Draws for a page."""
    token = _page.set(wanted)
    try:
        yield
    finally:
        _page.reset(token)
