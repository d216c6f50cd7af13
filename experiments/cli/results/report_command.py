"""`tfnas report`: write claims, figures, tables and provenance of an experiment on one page."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from experiments.cli.results.figures_command import experiment_options, open_experiment
from experiments.console import echo
from nas.foundation.errors import UserError, first_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from analysis.reading.experiment import Experiment

_SHOWN = (".png", ".svg", ".md", ".csv")
"""Files that MLflow's own interface shows."""


@click.command()
@experiment_options
@click.option("--json", "as_json", is_flag=True, help="Print claims as JSON (empty for studies).")
def report(
    experiment: str | None,
    bundle: Path | None,
    out: Path | None,
    table: str | None,
    code_version: str | None,
    all_runs: bool,
    as_json: bool,
) -> int:
    """Test the claims of EXPERIMENT with the runs of its grid, and write OUT/report.html.

    The page is self-contained: grid, claims, figures, tables, derived networks and provenance. For a study
    it shows the space, the importance of each field and the best points instead of grid and claims. Figures
    and tables are also written as files. All of them are added to the run of the launch in MLflow, unless a
    bundle was read. The exit code is 1 if the files of a run cannot be read.

    Example: tfnas report ablation_sampling --out results/ablation_sampling
    """
    from analysis.figures import make_drawings
    from analysis.figures.ink.figure_files import write_drawings
    from analysis.measures import measure_runs
    from analysis.reading.captions import count
    from analysis.report.report_page import write_report
    from analysis.tables import make_tables
    from analysis.tables.table_files import write_table
    from analysis.verdicts import NONE_OF_A_STUDY, judge
    from analysis.verdicts.redundant_encodings import describe_redundancy
    from analysis.verdicts.verdict_record import record_verdict

    runs, folder = open_experiment(
        experiment,
        out,
        bundle,
        table=table,
        code_version=code_version,
        all_runs=all_runs,
        written=["figures", "tables"],
    )
    exit_code = 0 if runs.is_read else 1
    numbers = measure_runs(runs)
    verdicts = judge(runs, numbers)
    drawings, undrawn = make_drawings(runs)
    tables, unmade = make_tables(runs, numbers)
    figures = write_drawings(drawings, runs, folder / "figures")
    written = [path for one in tables for path in write_table(one, runs, folder / "tables")]
    page = write_report(
        runs,
        numbers,
        verdicts,
        drawings,
        tables,
        [*undrawn, *unmade],
        folder / "figures",
        folder / "report.html",
    )
    if not (bundle or table or code_version or all_runs):
        _add_to_launch(runs, folder, page, figures, written)
    if as_json:
        content = [record_verdict(verdict) for verdict in verdicts]
        click.echo(json.dumps({"report": str(page), "claims": content}, indent=1))
        return exit_code
    for line in (*runs.notices, *undrawn, *unmade):
        echo(line, err=True)
    for verdict in verdicts:
        if verdict.status == "not asked":
            continue
        echo(f"({verdict.name}) {verdict.claim.statement}")
        echo(f"    {verdict.status.upper()}: {verdict.reason}")
        num_seeds = count(verdict.estimate.n, "seed")
        echo(f"    {verdict.measure}: {verdict.estimate.text}; n = {num_seeds}")
        echo(f"    {verdict.registration}")
        for line in (*verdict.sensitivity, *verdict.beside, *verdict.caveats):
            echo(f"    {line}")
    not_asked = ", ".join(f"({verdict.name})" for verdict in verdicts if verdict.status == "not asked")
    if not_asked:
        echo(f"This grid does not ask {not_asked}")
    if redundancy := describe_redundancy(runs, numbers):
        echo(f"(c) {redundancy}")
    if runs.is_study:
        echo(NONE_OF_A_STUDY)
    echo(str(page))
    return exit_code


def _add_to_launch(
    experiment: "Experiment", folder: Path, page: Path, figures: "Sequence[Path]", tables: "Sequence[Path]"
) -> None:
    """Adds the page, its figures and tables to the run of the launch, in place of earlier ones."""
    from mlflow.exceptions import MlflowException

    from experiments.tracking.tracker import Tracker

    try:
        tracker = Tracker(experiment.name, folder.resolve())
        last = tracker.last_registration("search")
        if last is not None:
            tracker.add_files(last[0], [page])
            tracker.add_files(last[0], [path for path in figures if path.suffix in _SHOWN], "figures")
            tracker.add_files(last[0], [path for path in tables if path.suffix in _SHOWN], "tables")
    except (UserError, MlflowException, OSError) as error:
        echo(f"not added to MLflow: {first_line(error)}", err=True)
