"""Types and options that several commands share."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


class UserPath(click.Path):
    """A path as a person writes it: a shell leaves `~` as it is in `--out=~/results`."""

    def __init__(self, **options: bool) -> None:
        super().__init__(path_type=Path, **options)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See `click.Path`."""
        return super().convert(os.path.expanduser(value), param, ctx)


def busy_option(help_text: str) -> Callable[[Command], Command]:
    """The option that insists on measuring."""
    return click.option(
        "--even-if-busy", is_flag=True, envvar="TFNAS_EVEN_IF_BUSY", show_envvar=True, help=help_text
    )
