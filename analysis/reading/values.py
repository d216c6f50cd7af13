"""Config values: parsed from the text that MLflow keeps, and written for people."""

from collections.abc import Iterable

from nas.foundation.escaping import escape_unprintable

Value = bool | int | float | str | None

_LABELS = {
    "target_latency_ms": "T = {} ms",
    "latency_weight": "λ = {}",
    "objective_scale": "a = {}",
    "objective_exponent": "b = {}",
    "seed": "seed {}",
    "num_epochs": "{} epochs",
    "images": "images {}",
}
_PLAIN = frozenset({"method", "sampling", "depth", "objective", "space", "dataset"})
_SWITCHES = {"elasticity": ("elastic", "fixed widths")}


_ORDER = (
    *("method", "sampling", "depth", "elasticity"),
    *("objective", "latency_weight", "objective_scale", "objective_exponent", "target_latency_ms"),
)


def order_fields(names: Iterable[str]) -> tuple[str, ...]:
    """Returns fields in the one order in which settings are named everywhere."""
    rank = {name: place for place, name in enumerate(_ORDER)}
    return tuple(sorted(names, key=lambda name: (rank.get(name, len(rank)), name)))


def parse_value(text: str) -> Value:
    """Returns the value whose `str` MLflow has stored."""
    if text in ("True", "False", "None"):
        return {"True": True, "False": False, "None": None}[text]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def show_value(name: str, value: Value) -> str:
    """Writes the value of a factor for captions and legends: `T = 4 ms`."""
    if name in _SWITCHES:
        return _SWITCHES[name][0 if value else 1]
    text = f"{value:.4g}" if isinstance(value, float) else escape_unprintable(str(value))
    if name in _PLAIN:
        return text
    return _LABELS.get(name, name + " = {}").format(text)
