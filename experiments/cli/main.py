"""The `tfnas` command: its subcommands and its exit codes."""

import errno
import importlib
import sys
import warnings
from typing import NamedTuple, TextIO

import click
from click.shell_completion import CompletionItem

from experiments.cli.completion import SHELLS, install_completion
from nas.foundation.errors import InputWarning, PeerError, RunWarning, UserError
from nas.foundation.escaping import safe_line


class _Listed(NamedTuple):
    room: str
    help_text: str


_COMMANDS = {
    "demo": _Listed("launches", "Run small searches and draw the collapse and depth figures, in minutes."),
    "init": _Listed("planning", "Write a YAML file to start from."),
    "config": _Listed("planning", "Show the fields of a YAML file, and its schema for editors."),
    "launch": _Listed("launches", "Run the searches or trainings of a YAML file."),
    "watch": _Listed("launches", "Follow a running launch in a browser."),
    "figures": _Listed("results", "Draw the figures of an experiment."),
    "report": _Listed("results", "Write the report of an experiment."),
    "health": _Listed("results", "Show which searches of an experiment are healthy."),
    "compare": _Listed("results", "Compare two trials."),
    "bundle": _Listed("results", "Write an experiment into one file that needs no MLflow."),
    "verify": _Listed("results", "Recompute every number, table and verdict of bundles."),
    "benchmark": _Listed("launches", "Compare search methods on a table of known accuracies."),
    "latency": _Listed("networks", "Measure, import and check latency lookup tables."),
    "describe": _Listed("networks", "Describe networks: layers, size, cost, latency."),
    "import-search": _Listed("networks", "Import the network of a published search checkpoint."),
    "train": _Listed("networks", "Train networks from scratch."),
    "export": _Listed("networks", "Export a trained network."),
    "predict": _Listed("networks", "Classify images with a trained network."),
}
"""Command NAME is in `experiments/cli/ROOM/NAME_command.py`, with _ for -, imported only to run it.

Torch takes seconds to import.
"""


_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE)
"""Errors of a disk that could be written to before: it is full, or it is broken or gone."""


class _LazyGroup(click.Group):
    """A group that imports a command's module only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        room, name = _COMMANDS[cmd_name].room, cmd_name.replace("-", "_")
        command = getattr(importlib.import_module(f"experiments.cli.{room}.{name}_command"), name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, listed.help_text) for name, listed in _COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        # Click's own would import the module of every command, for its help text.
        commands = [
            CompletionItem(name, help=listed.help_text)
            for name, listed in _COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return commands + click.Command.shell_complete(self, ctx, incomplete)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tfnas")
@click.option(
    "--install-completion",
    type=click.Choice(["auto", *SHELLS]),
    is_flag=False,
    flag_value="auto",
    is_eager=True,
    expose_value=False,
    callback=install_completion,
    help="Write a script that completes commands, options and paths on TAB, print how to load it, and exit. "
    "'auto' is the shell that SHELL names.",
)
def tfnas() -> None:
    """Search for neural architectures that meet a latency target, as reproducible experiments.

    Example: tfnas launch tune_configs/smoke.yaml --out results/smoke
    """


def main() -> None:
    """Runs the command; each wrong input gives a line on stderr, and the exit code 2."""
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        _run()


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Shows a warning of tfnas in one line, and any other as Python does, with its place in the source."""
    if issubclass(category, RunWarning | InputWarning):
        shown = f"tfnas: warning: {safe_line(str(message))}\n"
    else:
        shown = warnings.formatwarning(message, category, filename, lineno, line)
    click.echo(shown, nl=False, err=True)


def _run() -> None:
    try:
        sys.exit(tfnas(standalone_mode=False))
    except UserError as error:
        for line in str(error).splitlines():
            click.echo(f"tfnas: {line}", err=True)
        sys.exit(2)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "tfnas"
        message = safe_line(" ".join(error.format_message().split()))
        click.echo(f"tfnas: {message.rstrip('.')}; see {where} --help", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        where = f"{error.filename}: " if error.filename else ""
        click.echo(f"tfnas: {safe_line(where)}{error.strerror}; fix this, then rerun the command", err=True)
        sys.exit(2)
    except PeerError:
        # The process that failed first has printed why.
        sys.exit(1)
    except (KeyboardInterrupt, click.Abort):
        click.echo("tfnas: interrupted", err=True)
        sys.exit(130)
