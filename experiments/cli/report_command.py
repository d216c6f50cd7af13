"""`tfnas report`: write claims, figures, tables and provenance of an experiment on one page."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from experiments.cli.figures_command import experiment_options, open_experiment


@click.command()
@experiment_options
@click.option("--json", "as_json", is_flag=True, help="Print claims as JSON (empty for studies).")
def report(
    experiment: str, out: Path | None, table: str | None, code_version: str | None, as_json: bool
) -> None:
    """Test the claims of the paper with the runs of EXPERIMENT, and write OUT/report.html.

    The page is self-contained: grid, claims, figures, tables, derived networks and provenance. For a study
    it shows the space, the importance of each field and the best points instead of grid and claims. Figures
    and tables are also written as files.

    Example: tfnas report ablation_sampling --out results/ablation_sampling
    """
    from analysis.figures import make_drawings
    from analysis.figures.ink.figure_files import write_drawings
    from analysis.measures import measure_runs
    from analysis.report.report_page import write_report
    from analysis.tables import make_tables
    from analysis.tables.table_files import write_table
    from analysis.verdicts import NONE_OF_A_STUDY, judge_claims

    runs, folder = open_experiment(experiment, out, table, code_version)
    numbers = measure_runs(runs)
    claims = judge_claims(runs, numbers)
    drawings, undrawn = make_drawings(runs)
    tables, unmade = make_tables(runs, numbers)
    write_drawings(drawings, runs, folder / "figures")
    for one in tables:
        write_table(one, runs, folder / "tables")
    page = write_report(
        runs,
        numbers,
        claims,
        drawings,
        tables,
        [*undrawn, *unmade],
        folder / "figures",
        folder / "report.html",
    )
    if as_json:
        kept = ("letter", "statement", "measure", "verdict", "reason", "comparison", "num_seeds", "num_cells")
        content = [{name: asdict(claim)[name] for name in kept} for claim in claims]
        click.echo(json.dumps({"report": str(page), "claims": content}, indent=1))
        return
    for line in (*runs.notices, *undrawn, *unmade):
        click.echo(line, err=True)
    for claim in claims:
        click.echo(f"({claim.letter}) {claim.statement}")
        click.echo(f"    {claim.verdict.upper()}: {claim.reason}")
        click.echo(f"    {claim.measure}: {claim.effect}; n = {claim.num_seeds} seeds")
    if runs.is_study:
        click.echo(NONE_OF_A_STUDY)
    click.echo(page)
