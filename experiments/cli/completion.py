"""`tfnas --install-completion`: completion on TAB."""

import os
import shlex
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from nas.foundation.errors import UserError
from nas.foundation.escaping import safe_line
from nas.foundation.files import write_atomically

SHELLS = ("bash", "zsh", "fish")
"""Shells for which click writes a completion script."""


def install_completion(ctx: click.Context, _param: click.Parameter, shell: str | None) -> None:
    """Writes the completion script of a shell, prints the line that loads it, and ends the command.

    Fish loads scripts from a folder of its own and needs no line. The startup files of bash and zsh belong to
    their user and are not touched.
    """
    if shell is None or ctx.resilient_parsing:
        return
    if shell == "auto":
        shell = Path(os.environ.get("SHELL", "")).name
    if shell not in SHELLS:
        raise UserError(
            f"--install-completion: SHELL names '{safe_line(shell)}', for which there is no script; "
            f"name one of {', '.join(SHELLS)}"
        )
    config = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    path = config / ("fish/completions/tfnas.fish" if shell == "fish" else f"tfnas/completion.{shell}")
    complete = get_completion_class(shell)
    assert complete is not None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, complete(ctx.command, {}, "tfnas", "_TFNAS_COMPLETE").source().encode())
    except OSError as error:
        raise UserError(
            f"{path}: cannot write the completion script: {error.strerror}; set XDG_CONFIG_HOME"
        ) from None
    if shell == "fish":
        click.echo(f"wrote {path}; new shells use it", err=True)
    else:
        after = ", after compinit" if shell == "zsh" else ""
        click.echo(f"wrote {path}; add this line to ~/.{shell}rc{after}:", err=True)
        click.echo(f"source {shlex.quote(str(path))}")
    ctx.exit()
