"""One style for each setting: the same color and marker in all figures of all experiments."""

from collections.abc import Iterable, Mapping, Sequence
from zlib import crc32

from analysis.figures.ink.style import LINE_STYLES, LineStyle
from analysis.reading.experiment import Experiment
from analysis.reading.values import Value

_ORANGE, _BLUE, _GREEN, _BLACK, _PINK, _AMBER, _SKY, _GRAY = LINE_STYLES

KNOWN_STYLES: Mapping[str, Mapping[Value, LineStyle]] = {
    "method": {"tf_nas": _BLUE, "random": _GRAY, "gp_nas": _AMBER},
    "depth": {"sink": _BLUE, "skip": _ORANGE},
    "sampling": {
        "single": _BLACK,
        "bi_random": LineStyle(_GREEN.color, "-", _GREEN.marker),
        "bi_gumbel": _PINK,
        "bi_min": _SKY,
        "bi_max": _AMBER,
    },
    "elasticity": {True: _BLUE, False: _ORANGE},
    "objective": {
        "tfnas": _BLUE,
        "fbnet": _ORANGE,
        "proxyless_add": _GREEN,
        "proxyless_mul": _PINK,
        "lagrangian": _AMBER,
    },
}
"""Styles by field and value; the first of these fields that distinguishes lines gives them their color."""

Setting = tuple[Value, ...]


def setting_styles(
    experiment: Experiment, fields: Sequence[str]
) -> tuple[Sequence[str], dict[Setting, LineStyle]]:
    """Returns the styles of an experiment's settings of these fields.

    Returns:
        The fields that distinguish lines, and the style of each of their settings.
    """
    named = tuple(field for field in fields if field in experiment.factors) or tuple(fields[:1])
    return named, assign_styles(named, [run.setting(named) for run in experiment.cells])


def assign_styles(fields: Sequence[str], settings: Iterable[Setting]) -> dict[Setting, LineStyle]:
    """Returns a style for each setting of these fields, each a different one as long as there are enough.

    The value of the first field of `KNOWN_STYLES` gives the color. Dashes and marker are those of the next
    such field, or of a place that the values of the other fields have among all styles; without other fields,
    they belong to the color. A setting without known values has such a place for all three.
    """
    styles: dict[Setting, LineStyle] = {}
    for setting in sorted(set(settings), key=str):
        known, others = _split(dict(zip(fields, setting, strict=True)))
        taken = set(styles.values())
        if not known:
            styles[setting] = _first_free(others, taken)
            continue
        lead, *rest = known
        mark = rest[0] if rest else _first_free(others, set()) if others else lead
        candidates = [mark, *_from(others)]
        combined = [LineStyle(lead.color, one.dashes, one.marker) for one in candidates]
        styles[setting] = next((style for style in combined if style not in taken), combined[0])
    return styles


def pick_styles(names: Iterable[str], taken: Iterable[LineStyle] = ()) -> dict[str, LineStyle]:
    """Returns a style for each name, none of them taken as long as there are enough."""
    used, styles = set(taken), {}
    for name in names:
        styles[name] = _first_free(name, used)
        used.add(styles[name])
    return styles


def _split(values: dict[str, Value]) -> tuple[list[LineStyle], str]:
    """The known styles of a setting, in the order of their fields, and its other values as text."""
    known = {name: KNOWN_STYLES[name].get(values[name]) for name in KNOWN_STYLES if name in values}
    styles = {name: style for name, style in known.items() if style is not None}
    # Settings of TF-NAS differ by its own fields, which other methods do not have.
    if len(styles) > 1 and values.get("method") == "tf_nas":
        del styles["method"]
    elif values.get("method") not in (None, "tf_nas"):
        styles = {"method": styles["method"]} if "method" in styles else {}
    others = [f"{name}={value}" for name, value in values.items() if known.get(name) is None]
    return list(styles.values()), ", ".join(others)


def _first_free(name: str, taken: set[LineStyle]) -> LineStyle:
    """The style at the place of a name, or the next one that is not taken."""
    candidates = _from(name)
    return next((style for style in candidates if style not in taken), candidates[0])


def _from(name: str) -> list[LineStyle]:
    """All styles, from the place of a name on."""
    start = crc32(name.encode()) % len(LINE_STYLES)
    return [*LINE_STYLES[start:], *LINE_STYLES[:start]]
