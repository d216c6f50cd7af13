"""What the commands that read an experiment have in common."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from analysis.reading.experiment import Experiment


def experiment_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The argument EXPERIMENT, and the options that say which of its runs to read."""
    decorators = (
        click.argument("experiment"),
        click.option(
            "--out",
            type=click.Path(path_type=Path, file_okay=False),
            help="Folder of the launch, which holds mlflow.db.  [default: results/EXPERIMENT]",
        ),
        click.option("--table", help="First digits of the lookup table's fingerprint, if runs differ in it."),
        click.option("--code-version", help="First characters of the code version, if runs differ in it."),
    )
    for decorate in reversed(decorators):
        command = decorate(command)
    return command


def open_experiment(
    name: str, out: Path | None, table: str | None, code_version: str | None
) -> tuple["Experiment", Path]:
    """Reads the experiment, and says which folder is its own.

    Raises:
        UserError: no store, no such experiment, or no finished run.
    """
    # Here, since MLflow and pandas take seconds to import and `--help` needs neither.
    from analysis.reading.experiment_reader import read_experiment
    from analysis.reading.store import tracking_uri_of

    folder = out or Path("results") / name
    return read_experiment(name, tracking_uri_of(folder), table=table, code_version=code_version), folder
