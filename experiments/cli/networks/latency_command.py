"""`tfnas latency`: measure, import, check and read lookup tables."""

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from experiments.console import UserPath, busy_option, echo
from experiments.output_paths import check_output_file
from nas.foundation.errors import UserError
from nas.space.macro_space import SPACES, get_space

if TYPE_CHECKING:
    from nas.latency.calibration import TableCheck
    from nas.latency.table import LatencyTable

_FILE = UserPath(dir_okay=False)
_PLOT_SUFFIXES = (".png", ".pdf", ".svg")
_table_argument = click.argument("table_path", metavar="TABLE", type=_FILE)
_space_option = click.option(
    "--space", type=click.Choice(list(SPACES)), required=True, help="Space whose operators the table covers."
)
_device_option = click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
_busy_option = busy_option("Measure even if other processes use the machine.")
_report = partial(echo, err=True)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


@click.group()
def latency() -> None:
    """Measure, import and check latency lookup tables.

    Example: tfnas latency measure --space micro --out table.json
    """


@latency.command()
@_space_option
@click.option("--out", type=_FILE, required=True, help="JSON file to write.")
@_device_option
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads on the CPU.")
@click.option("--batch-size", type=click.IntRange(1), help="Images at a time.  [default: 1, on CUDA 32]")
@click.option(
    "--classes", type=click.IntRange(2), default=1000, show_default=True, help="Classifier outputs."
)
@click.option(
    "--max-seconds",
    type=click.FloatRange(0),
    default=900,
    show_default=True,
    help="Stop adding repeats and widths after this time; every operator is measured in any case.",
)
@_busy_option
@_json_option
def measure(
    space: str,
    out: Path,
    device: str,
    threads: int,
    batch_size: int | None,
    classes: int,
    max_seconds: float,
    even_if_busy: bool,
    as_json: bool,
) -> None:
    """Measure the lookup table of a space on this machine.

    Example: tfnas latency measure --space paper --out table.json
    """
    from nas.latency.measurement import measure_table

    check_output_file(out, "--out")
    table = measure_table(
        get_space(space),
        device=device,
        num_threads=threads,
        batch_size=batch_size,
        num_classes=classes,
        max_duration_s=max_seconds,
        even_if_busy=even_if_busy,
        report=_report,
    )
    _write(table, out, as_json)


@latency.command("import")
@click.argument("source", metavar="FILE", type=_FILE)
@_space_option
@click.option("--out", type=_FILE, required=True, help="JSON file to write.")
@click.option(
    "--device-name",
    help="Device that the table was measured on.  [default: that of a JSON table; 'unknown' for a pickle]",
)
@_json_option
def import_(source: Path, space: str, out: Path, device_name: str | None, as_json: bool) -> None:
    """Import FILE, a published pickle or a JSON table of another device, with all its latencies.

    Pickles are read without running any code in them. They do not name their device: use --device-name. For a
    JSON table, --device-name replaces the name in it.

    Example: tfnas latency import latency_gpu.pkl --space paper --device-name "Titan RTX" --out table.json
    """
    from nas.latency.table_import import UNKNOWN_DEVICE, import_table

    check_output_file(out, "--out")
    table = import_table(source, get_space(space), device_name)
    if table.provenance.device_name == UNKNOWN_DEVICE:
        _report(
            f"tfnas: warning: {source}: does not name its device, which the table "
            f"records as '{UNKNOWN_DEVICE}'; name it with --device-name"
        )
    _write(table, out, as_json)


@latency.command()
@_table_argument
@click.option(
    "--networks", type=click.IntRange(5), default=30, show_default=True, help="Random networks to measure."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the networks.")
@click.option(
    "--plot", type=_FILE, help="Scatter plot to write (.png, .pdf, .svg).  [default: TABLE.check.png]"
)
@click.option("--out", type=_FILE, help="Write the table with the fitted correction.")
@_device_option
@_busy_option
@_json_option
def check(
    table_path: Path,
    networks: int,
    seed: int,
    plot: Path | None,
    out: Path | None,
    device: str,
    even_if_busy: bool,
    as_json: bool,
) -> None:
    """Compare the predictions of TABLE with whole networks measured end to end.

    With --out, the systematic part of the difference is stored as the correction of the table.

    Example: tfnas latency check table.json --networks 30 --out calibrated.json
    """
    from analysis.figures.calibration_figure import save_calibration
    from nas.latency.calibration import check_predictions
    from nas.latency.table import LatencyTable

    table = LatencyTable.load(table_path)
    plot = plot or table_path.with_suffix(".check.png")
    if plot.suffix not in _PLOT_SUFFIXES:
        raise UserError(f"--plot {plot}: use a name that ends in {', '.join(_PLOT_SUFFIXES)}")
    check_output_file(plot, "--plot")
    if out is not None:
        check_output_file(out, "--out")
    result = check_predictions(
        table,
        num_networks=networks,
        device=device,
        seed=seed,
        even_if_busy=even_if_busy,
        report=_report,
    )
    save_calibration(table_path.name, table, result, plot)
    if out is not None:
        table.with_calibration(result.calibration).save(out)
    if as_json:
        click.echo(json.dumps(_describe(result) | {"plot": str(plot)}, indent=1))
        return
    for line in _lines(result):
        echo(line)
    echo(f"plot: {plot}")
    if out is not None:
        echo(f"table with this correction: {out}")


@latency.command("range")
@_table_argument
@_json_option
def range_(table_path: Path, as_json: bool) -> None:
    """Print the latencies that networks of the space of TABLE can have.

    Example: tfnas latency range table.json
    """
    from nas.latency.table import LatencyTable, reachable_interval_ms

    table = LatencyTable.load(table_path)
    intervals = {
        "all networks": reachable_interval_ms(table),
        "at initial widths": reachable_interval_ms(table, initial_widths=True),
        "at full depth": reachable_interval_ms(table, full_depth=True),
        "at full depth and initial widths": reachable_interval_ms(
            table, initial_widths=True, full_depth=True
        ),
    }
    if as_json:
        content = {f"{name.replace(' ', '_')}_ms": interval for name, interval in intervals.items()}
        click.echo(json.dumps({"space": table.space, **content}, indent=1))
        return
    for name, (low_ms, high_ms) in intervals.items():
        echo(f"{name:33} {low_ms:10.3f} to {high_ms:10.3f} ms")


def _write(table: "LatencyTable", out: Path, as_json: bool) -> None:
    from nas.latency.table import reachable_interval_ms

    table.save(out)
    if doubt := table.provenance.doubt:
        _report(f"tfnas: warning: {out}: {doubt}; measure it again on a quiet machine")
    low_ms, high_ms = reachable_interval_ms(table)
    if as_json:
        summary = {
            "path": str(out),
            "fingerprint": table.fingerprint,
            "base_ms": table.base_latency_ms,
            "range_ms": [low_ms, high_ms],
            "num_entries": sum(len(entry.widths) for entry in table.entries),
            "provenance": table.provenance.model_dump(),
        }
        click.echo(json.dumps(summary, indent=1))
    else:
        echo(f"{out}: networks of '{table.space}' take {low_ms:.3f} to {high_ms:.3f} ms")


def _describe(result: "TableCheck") -> dict[str, Any]:
    return {
        "agreement": asdict(result.agreement),
        "correction": result.calibration.model_dump(),
        "networks": [
            {"predicted_ms": float(predicted_ms), **timing._asdict()}
            for predicted_ms, timing in zip(result.predicted_ms_N, result.timings, strict=True)
        ],
    }


def _lines(result: "TableCheck") -> list[str]:
    agreement, correction = result.agreement, result.calibration
    return [
        f"{agreement.num_networks} random networks, predicted and measured",
        f"mean absolute error   {agreement.mape_percent:7.2f} %",
        f"bias                  {agreement.bias_percent:+7.2f} %",
        f"Spearman correlation  {agreement.spearman:7.3f}",
        f"Kendall tau           {agreement.kendall_tau:7.3f}",
        f"correction: {correction.slope:.4f} x sum {correction.intercept_ms:+.3f} ms; on held-out networks "
        f"{correction.mape_percent:.2f} % error, 95 % interval ±{correction.half_width_percent:.1f} %",
    ]
