"""`tfnas latency`: measure, import and check lookup tables."""

import json
from pathlib import Path

import click

from nas.latency.measure import measure_table
from nas.latency.table import reachable_interval_ms
from nas.space import SPACE_NAMES, get_space


@click.group()
def latency() -> None:
    """Measures, imports and checks latency lookup tables."""


@latency.command()
@click.option(
    "--space", type=click.Choice(SPACE_NAMES), required=True, help="Space whose operators to measure."
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="JSON file to write.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads on the CPU.")
@click.option(
    "--batch-size", type=click.IntRange(1), help="Images at a time  [default: 1 on the CPU, else 32]."
)
@click.option(
    "--classes", type=click.IntRange(1), default=1000, show_default=True, help="Classifier outputs."
)
@click.option("--json", "as_json", is_flag=True, help="Print a summary as JSON.")
def measure(
    space: str, out: Path, device: str, threads: int, batch_size: int | None, classes: int, as_json: bool
) -> None:
    """Measures the lookup table of a space on this machine.

    Example: tfnas latency measure --space micro --out table.json
    """
    table = measure_table(
        get_space(space),
        device=device,
        num_threads=threads,
        batch_size=batch_size,
        num_classes=classes,
        report=lambda message: click.echo(message, err=True),
    )
    table.save(out)
    low_ms, high_ms = reachable_interval_ms(table)
    if as_json:
        summary = {"path": str(out), "fingerprint": table.fingerprint, "range_ms": [low_ms, high_ms]}
        click.echo(json.dumps(summary))
    else:
        click.echo(f"{out}: networks of '{space}' take {low_ms:.3f} to {high_ms:.3f} ms")
