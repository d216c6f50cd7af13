"""Lines, counts and durations on the screen."""

import math

from rich.console import Console

_WIDTH = 200


def make_console() -> Console:
    """The console that commands print to; files and pipes get wide lines, so that tables are not cut.

    Names come from files, so markup in them is printed as it is.
    """
    console = Console(markup=False)
    return console if console.is_terminal else Console(markup=False, width=_WIDTH)


def say(console: Console, message: str) -> None:
    """Prints a line without wrapping, color or markup."""
    console.print(message, highlight=False, markup=False, soft_wrap=True)


def format_count(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: `1 epoch`, `2 epochs`."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def format_duration(seconds: float) -> str:
    """A duration for people: `45 s`, `12 min`, `3.4 h`, `2.1 days`."""
    if math.isnan(seconds):
        return "?"
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"
