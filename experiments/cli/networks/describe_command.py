"""`tfnas describe`: layers, cost and latency of networks."""

import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from experiments.console import UserPath, busy_option, echo, make_console
from nas.foundation.errors import UserError

if TYPE_CHECKING:
    from nas.latency.table import LatencyTable
    from nas.space.architecture import Architecture
    from nas.space.network_cost import NetworkCost

_DEFAULT_RESOLUTION = 224
_COLUMNS = {
    **{"stage": "stage", "layer": "layer", "op": "operator", "resolution": "pixels", "in_channels": "in"},
    **{"mid_channels": "mid", "out_channels": "out", "stride": "stride", "latency_ms": "ms"},
}


@dataclass(frozen=True)
class _Subject:
    """A network to describe; those of torchvision have no architecture record."""

    name: str
    architecture: "Architecture | None"
    resolution: int


@click.command()
@click.argument("references", metavar="ARCH...", nargs=-1, required=True)
@click.option(
    "--latency",
    "table_path",
    metavar="TABLE",
    type=UserPath(dir_okay=False),
    help="Predict the latency with this lookup table.",
)
@click.option(
    "--classes", type=click.IntRange(2), default=1000, show_default=True, help="Classifier outputs."
)
@click.option("--measure", is_flag=True, help="Run the networks in turn and measure their latency.")
@click.option("--device", default="cpu", show_default=True, help="With --measure: cpu, cuda or cuda:N.")
@click.option(
    "--threads", type=click.IntRange(1), default=1, show_default=True, help="With --measure, on the CPU."
)
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="With --measure: images at a time.",
)
@click.option(
    "--out",
    type=UserPath(file_okay=False),
    help="Folder of a run, with its mlflow.db.  [default: where the run is]",
)
@busy_option("With --measure: measure even if other processes use the machine.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: an object, or a list for several ARCH.")
def describe(
    references: tuple[str, ...],
    table_path: Path | None,
    classes: int,
    measure: bool,
    device: str,
    threads: int,
    batch_size: int,
    out: Path | None,
    even_if_busy: bool,
    as_json: bool,
) -> None:
    """Describe networks: layers, parameters, multiply-accumulates, latency.

    ARCH is an architecture file (JSON, or a published .config), `run:RUN` (a search or training in MLflow by
    its name, its id or the first digits of it), the name of one that comes with tfnas (tf-nas-a), or a
    network of torchvision (efficientnet_b0, mobilenet_v3_large, mobilenet_v2, mnasnet1_0).

    Example: tfnas describe tf-nas-a efficientnet_b0 --measure
    """
    subjects = _find_subjects(references, out)
    descriptions = [_describe(subject, classes) for subject in subjects]
    if table_path is not None:
        _add_latencies(subjects, descriptions, table_path)
    if measure:
        _add_measurements(subjects, descriptions, classes, device, threads, batch_size, even_if_busy)
    if as_json:
        click.echo(json.dumps(descriptions if len(descriptions) > 1 else descriptions[0], indent=1))
    else:
        _print(descriptions)


def _find_subjects(references: tuple[str, ...], out: Path | None) -> list[_Subject]:
    from nas.space.macro_space import get_space

    architectures = [_find_architecture(reference, out) for reference in references]
    resolutions = [get_space(a.space).resolution for a in architectures if a is not None]
    return [
        _Subject(reference, None, max(resolutions, default=_DEFAULT_RESOLUTION))
        if architecture is None
        else _Subject(architecture.name or reference, architecture, get_space(architecture.space).resolution)
        for reference, architecture in zip(references, architectures, strict=True)
    ]


def _find_architecture(reference: str, out: Path | None) -> "Architecture | None":
    """The architecture of a file, a name or a run; None for a network of torchvision's."""
    from experiments.tracking.short_names import RUN_PREFIX, as_run, find_folder
    from nas.space.architecture import Architecture
    from nas.space.network_names import find_architecture

    out = out or find_folder([reference], Path("results/training"))
    reference = as_run(reference, out)
    if not reference.startswith(RUN_PREFIX):
        return find_architecture(reference)
    # Imported here: it knows cells, and so torch.
    from experiments.tracking.named_run import find_run

    with TemporaryDirectory() as folder:
        run = replace(find_run(reference, out), out=Path(folder))
        found = Architecture.load(run.fetch("architecture.json", "name a finished search"))
    return found if found.name else found.model_copy(update={"name": run.name})


def _describe(subject: _Subject, num_classes: int) -> dict[str, Any]:
    from nas.space.network_cost import cost_of

    if subject.architecture is None:
        cost = _cost_of_baseline(subject, num_classes)
    else:
        cost = cost_of(subject.architecture, num_classes, subject.resolution)
    description = {
        "name": subject.name,
        "resolution": subject.resolution,
        "classes": num_classes,
        "parameters": cost.num_parameters,
        "macs": cost.num_macs,
    }
    if subject.architecture is None:
        return description
    layers = [
        {
            "stage": layer.stage + 1,
            "layer": layer.index + 1,
            "op": op.name,
            "resolution": layer.resolution,
            "in_channels": layer.in_channels,
            "mid_channels": mid_channels,
            "out_channels": layer.out_channels,
            "stride": layer.stride,
        }
        for layer, op, mid_channels in subject.architecture.layers
    ]
    return {
        **description,
        "space": subject.architecture.space,
        "depth": subject.architecture.depth,
        "layers": layers,
    }


def _cost_of_baseline(subject: _Subject, num_classes: int) -> "NetworkCost":
    import torch

    from nas.space.baselines import make_network
    from nas.space.network_cost import NetworkCost
    from nas.space.profile import count_macs, count_parameters

    with torch.device("meta"):
        network = make_network(subject.name, num_classes, subject.resolution)
        return NetworkCost(count_parameters(network), count_macs(network, subject.resolution))


def _add_latencies(subjects: list[_Subject], descriptions: list[dict[str, Any]], table_path: Path) -> None:
    from nas.latency.table import LatencyTable

    table = LatencyTable.load(table_path)
    if all(subject.architecture is None for subject in subjects):
        raise UserError(f"--latency {table_path}: no ARCH belongs to a space; use --measure instead")
    for subject, description in zip(subjects, descriptions, strict=True):
        if subject.architecture is not None:
            _add_latency(subject.architecture, description, table, table_path)


def _add_latency(
    architecture: "Architecture", description: dict[str, Any], table: "LatencyTable", table_path: Path
) -> None:
    try:
        description["latency_ms"] = table.latency_ms(architecture)
    except UserError as error:
        raise UserError(f"{table_path}: {error}") from None
    interval_ms = table.interval_ms(architecture)
    if interval_ms is not None:
        description["latency_interval_ms"] = interval_ms
    stages_ms = dict.fromkeys(range(1, len(architecture.stages) + 1), 0.0)
    for layer, layer_ms in zip(description["layers"], table.layer_latencies_ms(architecture), strict=True):
        layer["latency_ms"] = layer_ms
        stages_ms[layer["stage"]] += layer_ms
    description["base_latency_ms"] = table.base_latency_ms
    description["stage_latencies_ms"] = list(stages_ms.values())


def _add_measurements(
    subjects: list[_Subject],
    descriptions: list[dict[str, Any]],
    num_classes: int,
    device_name: str,
    num_threads: int,
    batch_size: int,
    even_if_busy: bool,
) -> None:
    from nas.foundation.device import resolve_device
    from nas.latency.calibration import compare_networks
    from nas.latency.quiet import quiet_machine
    from nas.latency.timing import make_images, prepare_network
    from nas.space.baselines import make_network

    device = resolve_device(device_name)
    networks = [
        (
            prepare_network(make_network(s.architecture or s.name, num_classes, s.resolution), device),
            make_images(s.resolution, batch_size, device),
        )
        for s in subjects
    ]
    report = partial(echo, err=True)
    with quiet_machine(device, even_if_busy=even_if_busy, report=report):
        timings = compare_networks(networks, num_threads=num_threads, report=report)
    for description, timing in zip(descriptions, timings, strict=True):
        description["measured"] = {
            "median_ms": timing.median_ms,
            "iqr_ms": timing.iqr_ms,
            "num_repeats": timing.num_repeats,
            "ratio_to_first": timing.ratio,
            "ratio_iqr": timing.ratio_iqr,
            "batch_size": batch_size,
        }


def _print(descriptions: list[dict[str, Any]]) -> None:
    console = make_console()
    for description in descriptions:
        if "layers" in description:
            console.print(_layer_table(description))
        for line in _summary(description):
            echo(line)
        echo("")
    if len(descriptions) > 1 and "measured" in descriptions[0]:
        console.print(_comparison_table(descriptions))


def _layer_table(description: dict[str, Any]) -> Table:
    table = Table(title=f"{description['name']} (space '{description['space']}')", title_justify="left")
    columns = {name: _COLUMNS[name] for name in _COLUMNS if name in description["layers"][0]}
    for name, heading in columns.items():
        table.add_column(heading, justify="left" if name == "op" else "right")
    for layer in description["layers"]:
        cells = (layer[name] for name in columns)
        table.add_row(*(f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in cells))
    return table


def _summary(description: dict[str, Any]) -> list[str]:
    lines = [
        f"{description['name']}: {description['resolution']}x{description['resolution']} pixels, "
        f"{description['classes']} classes",
        f"  parameters  {description['parameters']:>15,}",
        f"  MACs        {description['macs']:>15,}",
    ]
    if "depth" in description:
        lines.append(f"  depth       {description['depth']:>15} searchable layers")
    if "latency_ms" in description:
        stages = " + ".join(f"{stage_ms:.2f}" for stage_ms in description["stage_latencies_ms"])
        low_ms, high_ms = description.get("latency_interval_ms", (None, None))
        interval = f" (95 % interval {low_ms:.2f} to {high_ms:.2f})" if low_ms is not None else ""
        lines += [
            f"  latency     {description['latency_ms']:>15.3f} ms by lookup table{interval}",
            f"    base {description['base_latency_ms']:.2f}, stages {stages}",
        ]
    if "measured" in description:
        measured = description["measured"]
        lines.append(
            f"  measured    {measured['median_ms']:>15.3f} ms (interquartile range {measured['iqr_ms']:.3f})"
        )
    return lines


def _comparison_table(descriptions: list[dict[str, Any]]) -> Table:
    table = Table(title="Measured in turn", title_justify="left")
    for column in ("network", "ms", "interquartile range", f"ratio to {descriptions[0]['name']}"):
        table.add_column(column, justify="left" if column == "network" else "right")
    for description in descriptions:
        measured = description["measured"]
        table.add_row(
            description["name"],
            f"{measured['median_ms']:.3f}",
            f"{measured['iqr_ms']:.3f}",
            f"{measured['ratio_to_first']:.3f} ± {measured['ratio_iqr'] / 2:.3f}",
        )
    return table
