"""Options shared by the commands that read an experiment."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from analysis.reading.experiment import Experiment


def experiment_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the argument EXPERIMENT, and the options that choose among its runs."""
    decorators = (
        click.argument("experiment"),
        click.option(
            "--out",
            type=click.Path(path_type=Path, file_okay=False),
            help="Folder of the launch, with its mlflow.db.  [default: results/EXPERIMENT]",
        ),
        click.option(
            "--table", help="Use only runs with this lookup table: first digits of its fingerprint."
        ),
        click.option(
            "--code-version", help="Use only runs of this version of the source: its first characters."
        ),
    )
    for decorate in reversed(decorators):
        command = decorate(command)
    return command


def open_experiment(
    name: str, out: Path | None, table: str | None, code_version: str | None
) -> tuple["Experiment", Path]:
    """Reads an experiment; returns it and its output folder.

    Raises:
        UserError: there is no store, no such experiment, or no finished run.
    """
    # Imported here: MLflow and pandas take seconds to import, and `--help` needs neither.
    from analysis.reading.experiment_reader import read_experiment
    from analysis.reading.store import tracking_uri_of

    folder = out or Path("results") / name
    return read_experiment(name, tracking_uri_of(folder), table=table, code_version=code_version), folder
