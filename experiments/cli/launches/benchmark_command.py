"""`tfnas benchmark`: search methods on a table of known accuracies."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from experiments.console import UserPath, format_count, make_console, say
from experiments.output_paths import check_output_folder
from nas.foundation.files import write_atomically

if TYPE_CHECKING:
    from analysis.measures.summary import Summary
    from nas.oracle.relaxation import Relaxation
    from nas.oracle.tabular import TabularOracle
    from nas.oracle.tabular_search import TabularSearch

_RELAXATION = "relaxation"
_POINTS = 100
"""Accuracies are fractions of 1; regrets are shown in points of accuracy."""


@dataclass(frozen=True)
class _Row:
    """What is shown of a method: each a mean over seeds with its interval."""

    method: str
    tau: "Summary"
    regret_points: "Summary"
    seconds: "Summary"


@click.command()
@click.argument("path", metavar="FILE", type=UserPath(dir_okay=False))
@click.option(
    "--evaluations",
    type=click.IntRange(20, 250),
    default=100,
    show_default=True,
    help="Networks that each search may evaluate.",
)
@click.option("--seeds", type=click.IntRange(1), default=10, show_default=True, help="Searches per method.")
@click.option(
    "--out",
    type=UserPath(file_okay=False),
    help="Folder to write benchmark.csv and the figure regret-by-evaluations into.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def benchmark(path: Path, evaluations: int, seeds: int, out: Path | None, as_json: bool) -> None:
    """Compare search methods on FILE, a table of networks with known accuracies.

    FILE is the JSON file of NAS-Bench-Macro. Methods are random search, GP-NAS with a sample that is uniform
    or informative (chosen by mutual information), and the differentiable relaxation with exact gradients,
    which needs neither evaluations nor seeds. Regret is how much less accurate the best network found is
    than the best of the table.

    Example: tfnas benchmark nas-bench-macro_cifar10.json --out results/benchmark
    """
    # Imported here: torch and scikit-learn take seconds to import, and `--help` needs neither.
    from nas.oracle.nas_bench_macro import load_nas_bench_macro
    from nas.oracle.relaxation import climb_relaxation
    from nas.oracle.tabular_search import TABULAR_METHODS, search_table

    oracle = load_nas_bench_macro(path)
    if out is not None:
        check_output_folder(out, "--out")
    searches = {
        method: [search_table(oracle, method, evaluations, seed) for seed in range(seeds)]
        for method in TABULAR_METHODS
    }
    relaxation = climb_relaxation(oracle)
    rows = _summarize(searches, relaxation)
    written = [] if out is None else _write(out, oracle, searches, relaxation)
    if as_json:
        content = {
            "table": oracle.name,
            "num_networks": len(oracle.names_N),
            "num_evaluations": evaluations,
            "num_seeds": seeds,
            "methods": [_as_json(row) for row in rows],
            "written": list(map(str, written)),
        }
        click.echo(json.dumps(content, indent=1))
        return
    console = make_console()
    console.print(_table(rows))
    shown = "mean and 95 % interval" if rows[0].regret_points.interval else "mean"
    budget = f"{evaluations} evaluations, {format_count(seeds, 'seed')}"
    say(console, f"{oracle.name}: {len(oracle.names_N):,} networks; {budget}; {shown}")
    for line in written:
        say(console, str(line))


def _summarize(searches: "Mapping[str, Sequence[TabularSearch]]", relaxation: "Relaxation") -> Sequence[_Row]:
    from analysis.measures.summary import summarize

    rows = [
        _Row(
            method,
            summarize([float("nan") if search.tau is None else search.tau for search in found]),
            summarize([search.regrets_V[-1] * _POINTS for search in found]),
            summarize([search.seconds for search in found]),
        )
        for method, found in searches.items()
    ]
    last = summarize([relaxation.regrets_S[-1] * _POINTS])
    return [*rows, _Row(_RELAXATION, summarize([]), last, summarize([relaxation.seconds]))]


def _table(rows: Sequence[_Row]) -> Table:
    table = Table("method", "Kendall tau", "regret, points", "seconds")
    for row in rows:
        table.add_row(row.method, _text(row.tau, 3), _text(row.regret_points, 3), f"{row.seconds.mean:.2f}")
    return table


def _text(summary: "Summary", digits: int) -> str:
    if not summary.n:
        return "-"
    mean = f"{summary.mean:.{digits}f}"
    if summary.interval is None:
        return mean
    low, high = summary.interval
    return f"{mean} [{low:.{digits}f}, {high:.{digits}f}]"


def _as_json(row: _Row) -> dict[str, Any]:
    def summary(of: "Summary") -> dict[str, Any] | None:
        return {"mean": of.mean, "interval": of.interval, "n": of.n} if of.n else None

    return {
        "method": row.method,
        "tau": summary(row.tau),
        "regret_points": summary(row.regret_points),
        "seconds": summary(row.seconds),
    }


def _write(
    folder: Path,
    oracle: "TabularOracle",
    searches: "Mapping[str, Sequence[TabularSearch]]",
    relaxation: "Relaxation",
) -> list[Path]:
    import numpy as np

    from analysis.figures.regret_figure import regret_courses, save_regrets

    regrets_SV = {
        method: np.stack([search.regrets_V for search in found]) * _POINTS
        for method, found in searches.items()
    }
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("method", "seed", "evaluation", "regret_points"))
    for method, points_SV in regrets_SV.items():
        for (seed, index), points in np.ndenumerate(points_SV):
            writer.writerow((method, seed, index + 1, f"{points:.6g}"))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "benchmark.csv"
    write_atomically(path, file.getvalue().encode())
    num_seeds = len(next(iter(searches.values())))
    title = f"{oracle.name}, {format_count(num_seeds, 'seed')}: median and quartiles"
    limits = {f"{_RELAXATION}, exact": float(relaxation.regrets_S[-1]) * _POINTS}
    return [path, *save_regrets(regret_courses(regrets_SV), limits, title, folder)]
