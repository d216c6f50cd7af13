"""`tfnas figures`: draw the figures of an experiment. Also options shared with other readers."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from experiments.console import UserPath, echo
from experiments.output_paths import check_output_folder
from nas.foundation.errors import UserError

if TYPE_CHECKING:
    from analysis.reading.experiment import Experiment
    from analysis.reading.run_store import RunStore

_LAYERED = "collapse"
"""The figure that --layers is about."""

from_option = click.option(
    "--from",
    "bundle",
    type=UserPath(),
    help="Read this bundle in place of MLflow; see `tfnas bundle`. EXPERIMENT is then left out.",
)


out_option = click.option(
    "--out",
    type=UserPath(file_okay=False),
    help="Folder of the launch, with its mlflow.db.  [default: results/EXPERIMENT]",
)


def _not_empty(context: click.Context, option: click.Parameter, text: str | None) -> str | None:
    if text is not None and not text.strip():
        raise UserError(f"{option.opts[0]}: is empty; give its first characters, or remove the option")
    return text


def experiment_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the argument EXPERIMENT, and the options that choose among its runs."""
    decorators = (
        click.argument("experiment", required=False),
        from_option,
        out_option,
        click.option(
            "--table",
            callback=_not_empty,
            help="Use only runs with this lookup table: first digits of its fingerprint.",
        ),
        click.option(
            "--code-version",
            callback=_not_empty,
            help="Use only runs of this version of the source: its first characters.",
        ),
        click.option(
            "--all-runs",
            is_flag=True,
            help="Read every run of the experiment, not only those of the grid launched last.",
        ),
    )
    for decorate in reversed(decorators):
        command = decorate(command)
    return command


def open_experiment(
    name: str | None,
    out: Path | None,
    bundle: Path | None = None,
    *,
    table: str | None = None,
    code_version: str | None = None,
    all_runs: bool = False,
    written: Sequence[str] = (),
) -> tuple["Experiment", Path]:
    """Reads an experiment; returns it and its output folder.

    Args:
        bundle: what it is read from; None for MLflow.
        written: folders below the output folder that the caller writes to; checked before runs are read.

    Raises:
        UserError: there is no store, no such experiment, or no finished run, or a folder is not writable.
    """
    # Imported here: MLflow and pandas take seconds to import, and `--help` needs neither.
    from analysis.reading.experiment_reader import read_experiment

    store: RunStore
    if bundle is not None:
        from analysis.bundles.bundle_store import BundleStore

        store = BundleStore.open(bundle)
        name = name or store.experiment
    elif name is None:
        raise click.UsageError("Missing argument 'EXPERIMENT'")
    folder = out or Path("results") / name
    if bundle is None:
        from analysis.reading.store import MlflowStore, tracking_uri_of

        store = MlflowStore(tracking_uri_of(folder))
    for each in written:
        check_output_folder(folder / each, "--out")
    experiment = read_experiment(name, store, table=table, code_version=code_version, all_runs=all_runs)
    return experiment, folder


def _list_of(kind: Callable[[str], Any]) -> Callable[..., Any]:
    """Parses `A,B,C`, for an option."""

    def parse(context: click.Context, option: click.Parameter, text: str | None) -> list[Any]:
        if text is None:
            return []
        parts = [part.strip() for part in text.split(",")]
        where = f"{option.opts[0]}: {text or 'empty'}"
        if not all(parts):
            raise UserError(f"{where}: must be {option.metavar}, with something between commas")
        try:
            values = [kind(part) for part in parts]
        except ValueError:
            raise UserError(f"{where}: must be numbers with commas between them") from None
        if repeated := _repeated(values):
            raise UserError(f"{where}: has {repeated[0]} twice; name it once")
        return values

    return parse


def _labels(context: click.Context, option: click.Parameter, texts: Sequence[str]) -> dict[str, str]:
    if wrong := [text for text in texts if not text.rpartition("=")[0].strip()]:
        raise UserError(f"--label: {wrong[0]}: must be VALUE=TEXT, for instance bi_random=bi-sampling")
    # The last one: a value may have an equals sign itself, as `T = 4 ms` has.
    pairs = [(value.strip(), label.strip()) for value, _, label in (text.rpartition("=") for text in texts)]
    if empty := [value for value, label in pairs if not label]:
        raise UserError(f"--label: {empty[0]}=: has no text; add it, or remove the option")
    if repeated := _repeated([value for value, _ in pairs]):
        raise UserError(f"--label: {repeated[0]}: has two texts; give it one")
    return dict(pairs)


def _repeated(values: Sequence[Any]) -> list[Any]:
    """The values that are there more than once."""
    return [value for value, number in Counter(values).items() if number > 1]


@click.command()
@experiment_options
@click.option(
    "--style",
    type=click.Choice(("neurips", "cvpr", "ieee", "springer")),
    help="Draw for this publisher's page, in its widths and with serifs, into OUT/figures/STYLE.",
)
@click.option(
    "--columns",
    type=click.Choice(("1", "2")),
    default="2",
    show_default=True,
    help="1: keep figures within one of two columns where their panels can stand below each other; not for "
    "neurips and springer, whose pages have no columns.",
)
@click.option(
    "--only", metavar="NAME,...", callback=_list_of(str), help="Draw these figures, named as their files."
)
@click.option("--seeds", metavar="SEED,...", callback=_list_of(int), help="Show searches of these seeds.")
@click.option(
    "--layers",
    metavar="STAGE.LAYER,...",
    callback=_list_of(str),
    help="Show these layers in the map of operator collapse.",
)
@click.option(
    "--order",
    metavar="VALUE,...",
    callback=_list_of(str),
    help="Order of settings: values as the figures write them, for instance single,bi_random,sink.",
)
@click.option(
    "--label",
    "labels",
    metavar="VALUE=TEXT",
    multiple=True,
    callback=_labels,
    help="Another text for a value of a setting, for instance bi_random=bi-sampling; may be repeated.",
)
@click.option("--check", is_flag=True, help="Check that the figures still match the runs, without drawing.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def figures(
    experiment: str | None,
    bundle: Path | None,
    out: Path | None,
    table: str | None,
    code_version: str | None,
    all_runs: bool,
    style: str | None,
    columns: str,
    only: list[str],
    seeds: list[int],
    layers: list[str],
    order: list[str],
    labels: dict[str, str],
    check: bool,
    as_json: bool,
) -> int:
    """Draw the figures of EXPERIMENT from its runs in MLflow or in a bundle, into OUT/figures.

    The runs are those of the grid that was launched last; --all-runs reads every run.

    Each figure is written as PNG, PDF and SVG, with its caption as text and for LaTeX, its numbers as CSV,
    and a JSON file that names its runs. The exit code is 1 if the files of a run cannot be read, and with
    --check if a figure no longer matches the runs.

    Example: tfnas figures smoke --out results/smoke --style cvpr --only collapse
    """
    from analysis.figures import make_drawings
    from analysis.figures.ink.figure_files import (
        check_drawings,
        choose_drawings,
        write_drawing,
        write_drawings,
    )
    from analysis.figures.ink.page import ANY_PAGE, PAGES, drawing_for
    from analysis.reading.shown import Shown

    if check and only:
        raise UserError("--only: does not go with --check, which looks at all figures; remove one of them")
    if layers and only and _LAYERED not in only:
        raise UserError(
            f"--layers: {','.join(layers)}: only the figure '{_LAYERED}' shows layers; add it to --only, or "
            "remove --layers"
        )
    page = PAGES[style] if style else ANY_PAGE
    if columns == "1" and not page.has_columns:
        raise UserError(f"--columns: 1: the pages of {style} have no columns; remove it")
    below = f"figures/{style}" if style else "figures"
    runs, folder = open_experiment(
        experiment,
        out,
        bundle,
        table=table,
        code_version=code_version,
        all_runs=all_runs,
        written=[] if check else [below],
    )
    runs = runs.showing(Shown(seeds, layers, order, labels))
    folder = folder / below
    with drawing_for(page.in_columns() if columns == "1" else page):
        drawings, undrawn = make_drawings(runs)
        result: dict[str, list[str]] = {"notices": list(runs.notices), "undrawn": [] if only else undrawn}
        if check:
            result["outdated"] = check_drawings(drawings, folder)
        elif only:
            chosen = choose_drawings(drawings, only)
            result["written"] = [str(path) for one in chosen for path in write_drawing(one, runs, folder)]
        else:
            result["written"] = list(map(str, write_drawings(drawings, runs, folder)))
    if as_json:
        click.echo(json.dumps(result, indent=1))
    else:
        _print(result, len(drawings))
    return 1 if result.get("outdated") or not runs.is_read else 0


def _print(result: dict[str, list[str]], num_figures: int) -> None:
    for line in (*result["notices"], *result["undrawn"]):
        echo(line, err=True)
    for line in (*result.get("written", ()), *result.get("outdated", ())):
        echo(line)
    if "outdated" in result and not result["outdated"]:
        echo(f"{num_figures} figures match the runs")
