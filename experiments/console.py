"""What commands share: types of options, and lines, counts and durations on the screen."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.text import Text

from nas.foundation.escaping import safe_line

_WIDTH = 200

Command = TypeVar("Command", bound=Callable[..., Any])


class _SafeConsole(Console):
    """A console for text of others: whatever its lines and tables hold, the terminal only shows it."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(safe_line(text), **options)


def make_console(*, stderr: bool = False) -> Console:
    """The console that commands print to; files and pipes get wide lines, so that tables are not cut.

    Names come from files and stores, so markup, escape sequences and secrets in them are not printed.

    Args:
        stderr: whether to print to the standard error, for commands whose output is JSON.
    """
    console = _SafeConsole(markup=False, emoji=False, stderr=stderr)
    if console.is_terminal:
        return console
    return _SafeConsole(markup=False, emoji=False, stderr=stderr, width=_WIDTH)


def say(console: Console, message: str) -> None:
    """Prints a line without wrapping, color or markup."""
    console.print(safe_line(message), highlight=False, markup=False, emoji=False, soft_wrap=True)


def echo(message: str, *, err: bool = False) -> None:
    """Prints a line as it is, even to a file; JSON, which escapes by itself, does not come here."""
    click.echo(safe_line(message), err=err)


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


class UserPath(click.Path):
    """A path as a person writes it: a shell leaves `~` as it is in `--out=~/results`."""

    def __init__(self, **options: bool) -> None:
        super().__init__(path_type=Path, **options)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See `click.Path`."""
        if value == "":
            # Such as a variable that is not set; it would mean the current folder.
            self.fail("it is empty; name a path", param, ctx)
        return super().convert(os.path.expanduser(value), param, ctx)


def busy_option(help_text: str) -> Callable[[Command], Command]:
    """The option that insists on measuring."""
    return click.option(
        "--even-if-busy", is_flag=True, envvar="TFNAS_EVEN_IF_BUSY", show_envvar=True, help=help_text
    )
