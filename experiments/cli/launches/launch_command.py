"""`tfnas launch`: run the searches, trainings or study of a YAML file."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from experiments.console import UserPath, busy_option, make_console, say
from nas.foundation.errors import ErrorList, UserError
from nas.foundation.uris import redact

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from analysis.reading.experiment import Experiment
    from analysis.verdicts.claim import Claim
    from experiments.cells.cell import Cell
    from experiments.launching.cell_states import CellState
    from experiments.launching.grid_launch import LaunchResult
    from experiments.specs.experiment_spec import ExperimentSpec
    from experiments.specs.grid import Grid
    from experiments.specs.settings import Setting

HOW_TO_RESUME = "interrupted; rerun the command to resume"


@click.command()
@click.argument("config", type=UserPath())
@click.option("--out", type=UserPath(), help="Output folder.  [default: results/EXPERIMENT]")
@click.option(
    "--set",
    "settings",
    metavar="KEY=VALUE",
    multiple=True,
    help="Change the content of CONFIG before it is checked, for instance base.num_epochs=10 or "
    "grid.seed=[0,1]; VALUE is YAML; may be repeated.",
)
@click.option(
    "--dry-run", is_flag=True, help="Print cells and feasibility; start, measure and write nothing."
)
@click.option(
    "--measure",
    is_flag=True,
    help="With --dry-run: measure missing lookup tables into the output folder, and estimate the cost by "
    "timing a few steps of each kind of cell: seconds each in small spaces, minutes in `paper` on a CPU.",
)
@busy_option(
    "Measure lookup tables even if other processes use the machine, and use tables that were measured so."
)
@click.option("--status", is_flag=True, help="Print the state of each cell without starting anything.")
@click.option(
    "--then-train",
    "training",
    metavar="TRAIN",
    type=UserPath(),
    help="Then train the networks found, and the other architectures of the YAML file TRAIN.",
)
@click.option(
    "--spread-from",
    metavar="EXPERIMENT",
    help="With --dry-run: plan the seeds with the spread of this earlier experiment, given by its name, or "
    "by the folder of its launch.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print the cells as JSON at the end; other lines go to stderr."
)
@click.option("--retry-failed", is_flag=True, help="Rerun cells that failed before.")
@click.option("--address", metavar="HOST:PORT|auto", help="Run the trials on this Ray cluster.")
@click.option(
    "--storage",
    metavar="PATH|URL",
    help="Keep checkpoints and artifacts here: a folder that all nodes share, or s3://BUCKET/PREFIX.  "
    "[default: the output folder]",
)
def launch(
    config: Path,
    settings: tuple[str, ...],
    **options: Any,
) -> int:
    """Run the searches or trainings of the YAML file CONFIG that are not done yet.

    A file with `architectures` describes trainings. Any other file describes searches: those of a grid, or
    those that Optuna chooses for a `study`.

    Rerun the command to resume after an interruption, or after adding values to the grid. Finished runs are
    kept: only a change of config, images or lookup table, or a new results version, makes a new run.

    With --set, dots lead into sections and numbers into lists (cells.0.depth=skip), later ones win, and paths
    are relative to the current folder. MLflow keeps the file as changed. Rerun with the same --set to resume.

    Exit codes: 0 all done; 1 some failed, or MLflow was unreachable; 2 wrong input; 130 interrupted (press
    Ctrl-C once to stop cleanly, twice to stop immediately).

    Example: tfnas launch tune_configs/smoke.yaml --out results/smoke
    """
    # Imported here, and below: Ray, MLflow and torch take seconds to import, `--help` needs none of
    # them, and `--status` only torch.
    from experiments.specs.settings import Setting, naming_settings

    changes = [Setting.parse(text, "KEY=VALUE, for instance base.num_epochs=10") for text in settings]
    with naming_settings(changes, config):
        return _launch(config, changes, **options)


def _launch(
    config: Path,
    settings: "Sequence[Setting]",
    *,
    out: Path | None,
    dry_run: bool,
    measure: bool,
    even_if_busy: bool,
    status: bool,
    training: Path | None,
    spread_from: str | None,
    as_json: bool,
    retry_failed: bool,
    address: str | None,
    storage: str | None,
) -> int:
    from experiments.cli.launches.study_command import study
    from experiments.launching.dry_run import print_dry_run
    from experiments.launching.status import next_steps, print_status, read_status
    from experiments.places.storage import Storage
    from experiments.specs.grid_file import load_grid

    # With --json, the standard output has nothing else.
    console = make_console(stderr=as_json)
    if training is not None and (dry_run or status):
        raise UserError(
            "--then-train: does not go with --dry-run or --status; run these for each file separately"
        )
    if as_json and dry_run:
        raise UserError("--json: does not go with --dry-run; use it with a launch or --status")
    if measure and not dry_run:
        raise UserError("--measure: is for planning, a launch measures what it needs; add --dry-run")
    if spread_from is not None and not dry_run:
        raise UserError(f"--spread-from: {spread_from}: is for planning; add --dry-run")
    grid, claims = _read(config, settings)
    out = out or Path("results") / grid.spec.experiment
    files = Storage.parse(storage) if storage else None
    if (study_grid := grid.as_study()) is not None:
        if retry_failed:
            raise UserError(
                "--retry-failed: a study does not rerun failed points; raise study.budget for more points"
            )
        if spread_from is not None:
            raise UserError(f"--spread-from: {spread_from}: a study tests no claims; remove it")
        if training is not None:
            raise UserError("--then-train: not after a study; launch the best.yaml that it writes instead")
        return study(
            study_grid,
            out,
            console,
            dry_run=dry_run,
            status=status,
            address=address,
            storage=files,
            measure=measure,
            even_if_busy=even_if_busy,
            as_json=as_json,
        )
    trainings = load_grid(training).as_trainings() if training is not None else None
    if trainings is not None:
        trainings.check_follows(grid.spec.experiment)
    if dry_run:
        earlier = _open_earlier(spread_from) if spread_from else None
        planned = print_dry_run(
            grid,
            out,
            console,
            claims=claims,
            retry_failed=retry_failed,
            address=address,
            measure=measure,
            even_if_busy=even_if_busy,
        )
        if claims:
            _print_seed_plan(planned, earlier, console)
        return 0
    if status:
        if as_json:
            _print_json(grid, out, read_status(grid, out, console, address=address)[0])
        else:
            texts = [one.text for one in settings]
            print_status(grid, out, console, settings=texts, address=address)
        return 0
    from experiments.cli.launches.launch_notes import write_notes
    from experiments.launching.grid_launch import launch as run_launch

    if trainings is not None:
        with trainings.place(address) as place:
            trainings.check_images(grid.searched_images(), place)
    run_grid = partial(
        run_launch,
        out=out,
        console=console,
        retry_failed=retry_failed,
        address=address,
        storage=files,
        even_if_busy=even_if_busy,
    )
    states: list[CellState] = []
    try:
        result = run_grid(grid, claims=claims)
        states += result.states
        exit_code = print_result(result, console)
        write_notes(result, config.name, console)
        if trainings is not None and exit_code != 130 and result.finished:
            found = trainings.with_searches(_run_ids(result.finished, grid.spec.experiment, out))
            result = run_grid(found)
            states += result.states
            exit_code = max(exit_code, print_result(result, console))
            write_notes(result, found.path.name, console)
    except KeyboardInterrupt:
        say(console, HOW_TO_RESUME)
        return 130
    _print_trained(result, grid.spec.experiment, out, console)
    if as_json:
        _print_json(grid, out, states)
    elif exit_code != 130:
        arguments = [str(config), *(part for one in settings for part in ("--set", one.text))]
        arguments += ["--then-train", str(training)] if training else []
        for line in next_steps(grid.spec.experiment, states, arguments, out):
            say(console, line)
    return exit_code


def _print_json(grid: "Grid", out: Path, states: "Sequence[CellState]") -> None:
    from experiments.launching.status import describe_states
    from experiments.tracking.store_access import tracking_uri

    content = {
        "experiment": grid.spec.experiment,
        "out": str(out),
        "tracking_uri": redact(tracking_uri(out)),
        "cells": describe_states(states, out),
    }
    click.echo(json.dumps(content, indent=1))


def _read(path: Path, settings: "Sequence[Setting]") -> tuple["Grid", dict[str, dict[str, Any]]]:
    """The grid of a YAML file, as settings change it, and its claims; reports errors of both at once.

    Raises:
        UserError: names file, field, value and remedy of all that is wrong.
    """
    from experiments.specs.experiment_spec import load_spec
    from experiments.specs.grid_file import grid_of

    spec, errors = load_spec(path, settings), ErrorList()
    with errors.collecting():
        grid = grid_of(spec, path)
    with errors.collecting():
        claims = claims_of(spec, path)
    errors.check()
    return grid, claims


def claims_of(spec: "ExperimentSpec", path: Path) -> dict[str, dict[str, Any]]:
    """The claims that a launch registers, as JSON; only grids of searches have any.

    Args:
        path: the YAML file, for errors.

    Raises:
        UserError: claims are wrong, or name a field or a value that no search can have.
    """
    if spec.grid_kind != "search":
        return {}
    # Imported here: analysis takes a second to import, and `--help` does not need it.
    from analysis.verdicts import resolve_claims

    records, errors = {}, ErrorList()
    for name, claim in resolve_claims(spec.claims, str(path)).items():
        with errors.collecting():
            records[name] = _record(claim, f"{path}: claims.{name}")
    errors.check()
    return records


def _record(claim: "Claim", where: str) -> dict[str, Any]:
    """A claim as JSON, with values as the runs have them: `bi` is short for `bi_random`."""
    from analysis.verdicts.claim import parse_claim
    from experiments.launching.grid_record import NOT_REGISTERED
    from experiments.specs.experiment_spec import parse_field
    from nas.config import SearchConfig

    errors = ErrorList()
    for field in sorted({*claim.treated, *claim.within} & {*NOT_REGISTERED, "seed"}):
        errors.add(f"{where}: {field}: is no setting that a claim can compare; name another field")
    settings: dict[str, dict[str, Any]] = {"baseline": {}, "treated": {}, "within": {}}
    for part, fields in settings.items():
        for field, value in getattr(claim, part).items():
            with errors.collecting():
                fields[field] = parse_field(SearchConfig, field, value, f"{where}.{part}")
    errors.check()
    return parse_claim(claim.model_dump() | settings, where).record()


def _open_earlier(name: str) -> "Experiment":
    """The experiment that tells how far seeds spread: `NAME`, or the folder `.../NAME` of its launch."""
    from experiments.cli.results.figures_command import open_experiment

    folder = Path(name)
    try:
        return open_experiment(folder.resolve().name, folder if folder.is_dir() else None)[0]
    except UserError as error:
        raise UserError(f"--spread-from: {name}: {error}") from None


def _print_seed_plan(planned: dict[str, Any], earlier: "Experiment | None", console: "Console") -> None:
    from analysis.reading.registration import parse_registration
    from analysis.verdicts.seed_plan import describe_plans

    lines = describe_plans(parse_registration(planned), earlier)
    if lines:
        say(console, "What the seeds can find out about the claims that this grid asks:")
    for line in lines:
        say(console, f"  {line}")
    if lines and earlier is None:
        say(console, "Name an earlier experiment with --spread-from to see this in the units of the measures")


def print_result(result: "LaunchResult", console: "Console") -> int:
    """Prints how a launch ended; returns the exit code."""
    from analysis.reading.mlflow_pages import experiment_page, how_to_look

    for cell, reason in result.failed:
        say(console, f"failed: {cell.name}: {reason}")
    num_done, plural = f"{len(result.finished)} of {len(result.cells)}", result.cells[0].plural
    say(console, f"{num_done} {plural} are finished")
    for line in how_to_look(result.tracking_uri, result.experiment_id, result.cells[0].kind):
        say(console, line)
    if result.num_bands:
        page = experiment_page(result.tracking_uri, result.experiment_id, "aggregate", shows_charts=True)
        say(console, f"settings over their seeds: {page}")
    if result.num_healthy or result.num_unhealthy:
        num_checked = result.num_healthy + result.num_unhealthy
        say(console, f"Health: {result.num_healthy} of {num_checked} {plural} are healthy")
    if result.num_undelivered:
        say(
            console,
            f"MLflow is still unreachable; the records of {result.num_undelivered} {plural} are kept: "
            "rerun the command to deliver them",
        )
    if result.interrupted:
        say(console, HOW_TO_RESUME)
        return 130
    return 1 if result.failed or result.num_undelivered else 0


def _print_trained(result: "LaunchResult", experiment: str, out: Path, console: "Console") -> None:
    """Prints and writes the table of trained networks, if there are any."""
    trained = {cell.hash for cell in result.finished if cell.network}
    if not trained or result.num_undelivered:
        return
    # Imported here: analysis takes a second to import, and most launches train nothing.
    from rich.table import Table

    from analysis.reading.experiment_reader import read_trainings
    from analysis.tables.result_table import cell_texts
    from analysis.tables.table_files import write_table
    from analysis.tables.trained_table import trained_table

    runs = read_trainings(experiment, result.tracking_uri, trained)
    table = trained_table(runs)
    shown = Table(*(column.heading for column in table.columns), title=table.title, title_justify="left")
    for row in cell_texts(table):
        shown.add_row(*row)
    console.print(shown)
    say(console, table.caption)
    path, *_ = write_table(table, runs, out / "tables")
    say(console, f"Written as {path}, and as .md and .csv")


def _run_ids(searches: "list[Cell]", experiment: str, out: Path) -> list[str]:
    from experiments.tracking.tracked_cells import DELETED, read_tracked_cells

    cells = read_tracked_cells(experiment, out)
    tracked = {key: cell for key, cell in cells.items() if cell.status != DELETED}
    if lacking := [cell.name for cell in searches if cell.hash not in tracked]:
        raise UserError(f"MLflow lacks the search {lacking[0]}; rerun the command once it is reachable")
    return [tracked[cell.hash].run_id for cell in searches]
