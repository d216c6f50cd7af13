"""`tfnas bundle`: write an experiment into one file that can be read, and verified, without MLflow."""

from pathlib import Path

import click

from experiments.cli.results.figures_command import out_option
from experiments.console import UserPath, echo
from experiments.output_paths import check_output_file


@click.command()
@click.argument("experiment")
@out_option
@click.option(
    "--file",
    type=UserPath(dir_okay=False),
    help="The file to write, in place of an earlier one.  [default: OUT/EXPERIMENT.bundle]",
)
def bundle(experiment: str, out: Path | None, file: Path | None) -> None:
    """Write EXPERIMENT into one file, for others to read and verify without MLflow.

    The file holds all runs of the experiment with their configs, metrics, trajectories, derived networks,
    evaluations and health; what launches registered, with their YAML files; lookup tables; and measures,
    tables and verdicts. It holds no weights and no images. The same results give the same bytes.

    Example: tfnas bundle smoke --out results/smoke
    """
    from analysis.bundles.bundle_writer import write_bundle
    from analysis.reading.store import MlflowStore, tracking_uri_of
    from nas.foundation.files import write_atomically

    folder = out or Path("results") / experiment
    path = file or folder / f"{experiment}.bundle"
    check_output_file(path, "--file")
    content, unreadable = write_bundle(experiment, MlflowStore(tracking_uri_of(folder)))
    write_atomically(path, content)
    for line in unreadable:
        echo(line, err=True)
    echo(f"{path}: {len(content):,} bytes")
