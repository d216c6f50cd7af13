"""`tfnas health`: which searches of an experiment are healthy, and what to change where they are not."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from experiments.cli.results.figures_command import experiment_options, open_experiment
from experiments.console import echo, format_count, make_console, say

if TYPE_CHECKING:
    from analysis.measures.search_health import FailedCheck
    from analysis.reading.run import Run


@click.command()
@experiment_options
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON.")
def health(
    experiment: str | None,
    bundle: Path | None,
    out: Path | None,
    table: str | None,
    code_version: str | None,
    all_runs: bool,
    as_json: bool,
) -> int:
    """Show which searches of EXPERIMENT are healthy, and what to change where they are not.

    The checks cover alphas, temperature, warm-up, latency, widths, depth and accuracy. For each failed check,
    the output names the fields to change.

    Exit codes: 0 all searches are healthy; 1 some are not; 2 wrong input.

    Example: tfnas health smoke --out results/smoke
    """
    # Imported here: pandas takes seconds to import, and `--help` does not need it.
    from analysis.measures.search_health import failed_checks

    found, _ = open_experiment(
        experiment, out, bundle, table=table, code_version=code_version, all_runs=all_runs
    )
    failed = failed_checks(found.runs)
    if as_json:
        click.echo(json.dumps(_as_json(found.runs, failed, found.notices), indent=1))
    else:
        for line in found.notices:
            echo(line, err=True)
        _print(found.runs, failed, make_console())
    return 1 if failed else 0


def _print(runs: "Sequence[Run]", failed: "Sequence[FailedCheck]", console: Console) -> None:
    checked = [run for run in runs if run.health is not None]
    if checked:
        console.print(_table(checked))
        num_healthy = sum(run.is_healthy is True for run in checked)
        say(console, f"{num_healthy} of {len(checked)} searches are healthy")
    for one in failed:
        searches = format_count(len(one.runs), "search", "searches")
        say(console, f"{one.name}: {searches}, for example {one.runs[0].name}: {one.finding}; {one.remedy}")
    if num_older := len(runs) - len(checked):
        are_older = "search is" if num_older == 1 else "searches are"
        say(console, f"{num_older} {are_older} older than health checks, or the record is damaged")


def _table(runs: "Sequence[Run]") -> Table:
    from analysis.measures.search_health import find_check, names_of_checks

    names = names_of_checks(runs)
    table = Table("search", *names)
    for run in runs:
        checks = [find_check(run, name) for name in names]
        marks = ["-" if check is None else "ok" if check.is_healthy else "✗" for check in checks]
        table.add_row(run.name, *marks, style=None if run.is_healthy else "red")
    return table


def _as_json(
    runs: "Sequence[Run]", failed: "Sequence[FailedCheck]", notices: Sequence[str]
) -> dict[str, Any]:
    from nas.search.health import checks_to_json

    return {
        "notices": list(notices),
        "searches": [
            {
                "name": run.name,
                "run_id": run.run_id,
                "is_healthy": run.is_healthy,
                "checks": checks_to_json(run.health or ()),
            }
            for run in runs
        ],
        "failed": [
            {
                "name": one.name,
                "num_searches": len(one.runs),
                "example": {"name": one.runs[0].name, "finding": one.finding},
                "remedy": one.remedy,
            }
            for one in failed
        ],
    }
