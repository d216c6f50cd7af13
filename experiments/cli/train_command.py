"""`tfnas train`: train networks from scratch."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from experiments.console import make_console, say
from nas.foundation.errors import UserError

if TYPE_CHECKING:
    from experiments.cells.cell import TrainingCell
    from experiments.launching.single_training import TrainingResult

_DEFAULT_EXPERIMENT = "training"


@click.command()
@click.argument("architectures", metavar="ARCH...", nargs=-1, required=True)
@click.option(
    "--set",
    "settings",
    metavar="FIELD=VALUE",
    multiple=True,
    help="A field of the training's config, for instance num_epochs=20; may be repeated.",
)
@click.option("--experiment", help="MLflow experiment.  [default: that of the search, or 'training']")
@click.option("--out", type=click.Path(path_type=Path), help="Output folder.  [default: results/EXPERIMENT]")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def train(
    architectures: tuple[str, ...],
    settings: tuple[str, ...],
    experiment: str | None,
    out: Path | None,
    as_json: bool,
) -> int:
    """Trains networks from scratch, one after the other, by the published protocol.

    ARCH is an architecture file, `run:RUN_ID` of a search in MLflow, `experiment:NAME` for all its finished
    searches, `tf-nas-a`, or one of torchvision's networks: efficientnet_b0,
    mobilenet_v3_large, mobilenet_v2, mnasnet1_0. Networks meant for larger images
    lose their first strides, until the last features have 4 pixels a side.

    Or ARCH is the YAML file of a grid of trainings, and alone; `tfnas launch` runs several of them at a time.
    Started by torchrun, all processes train one network together, a GPU each, then the next.

    Run it again to continue after whatever stopped it. Each FIELD is one of TrainConfig in nas/config.py.
    Exit code 0: all done; 1: some failed; 2: the input is wrong; 130: interrupted.

    Example: tfnas train tf-nas-a efficientnet_b0 --set num_epochs=5 --set num_warmup_epochs=1
    --set batch_size=64 --set lr=0.05
    """
    # Here, since MLflow and torch take seconds to import, `--help` needs neither, and who follows no MLflow.
    from nas.foundation.world import join_world
    from nas.training.processes import dismiss, follow

    with join_world() as world:
        if not world.is_first:
            follow(world)
            return 0
        from experiments.launching.single_training import train_here

        console = make_console()
        cells, experiment, out = _make_cells(architectures, settings, experiment, out)
        results = []
        for cell in cells:
            result = train_here(
                cell, experiment, out, lambda message: say(console, message) if not as_json else None, world
            )
            results.append(_summarize(cell, result))
            if not as_json:
                say(console, _describe(cell, result))
        dismiss(world)
    if as_json:
        click.echo(json.dumps(results, indent=1))
    return 1 if any(result["failure"] for result in results) else 0


def _parse_setting(setting: str) -> tuple[str, Any]:
    field, sign, text = setting.partition("=")
    if not sign:
        raise UserError(f"--set {setting}: write FIELD=VALUE, for instance num_epochs=20")
    try:
        return field, json.loads(text)
    # Text that is no JSON is text; numbers too long to convert, and lists too deep, are refused as such.
    except (ValueError, RecursionError):
        return field, text


def _make_cells(
    architectures: tuple[str, ...], settings: tuple[str, ...], experiment: str | None, out: Path | None
) -> "tuple[list[TrainingCell], str, Path]":
    from experiments.specs.experiment_spec import EXPERIMENT_NAME
    from experiments.specs.preparation import describe_installation, look_at_images
    from experiments.specs.training_grid import make_training_cell
    from experiments.tracking.named_network import find_networks
    from nas.config import TrainConfig
    from nas.foundation.device import resolve_device
    from nas.training.training import NetworkChoice

    if experiment is not None and not re.fullmatch(EXPERIMENT_NAME, experiment):
        raise UserError(
            f"--experiment {experiment}: use letters, digits, '.', '_' and '-'; name other folders by --out"
        )

    if Path(architectures[0]).suffix in (".yaml", ".yml"):
        if len(architectures) > 1 or settings or experiment:
            raise UserError(
                f"{architectures[0]}: holds all settings; leave out --set, --experiment, other ARCH"
            )
        return _read_cells(Path(architectures[0]), out)
    fields = dict(_parse_setting(setting) for setting in settings)
    if "architecture" in fields:
        raise UserError("--set architecture: name the architecture as ARCH instead")
    out = out or Path("results") / (experiment or _DEFAULT_EXPERIMENT)
    cells = []
    for network in find_networks(architectures, out):
        config = TrainConfig.parse(fields | {"architecture": network.architecture}, "--set")
        # Before anything is written: device, network and images are there.
        resolve_device(config.device)
        data_fingerprint = look_at_images(config, NetworkChoice.of(config).resolution)
        experiment = experiment or (network.search.experiment if network.search else None)
        cells.append(
            make_training_cell(network, config, data_fingerprint, describe_installation(config.device), {})
        )
    return cells, experiment or _DEFAULT_EXPERIMENT, out


def _read_cells(path: Path, out: Path | None) -> "tuple[list[TrainingCell], str, Path]":
    from experiments.cells.cell import TrainingCell
    from experiments.places.place import ThisMachine
    from experiments.specs.experiment_spec import TrainingSpec, load_spec
    from experiments.specs.training_grid import TrainingGrid

    spec = load_spec(path)
    if not isinstance(spec, TrainingSpec):
        raise UserError(f"{path}: architectures: missing; `tfnas launch` runs a file of searches")
    out = out or Path("results") / spec.experiment
    place = ThisMachine(spec.resources, str(path))
    cells = TrainingGrid.of(spec, path).cells(out, place, lambda message: click.echo(message, err=True))
    return [cell for cell in cells if isinstance(cell, TrainingCell)], spec.experiment, out


def _summarize(cell: "TrainingCell", result: "TrainingResult") -> dict[str, Any]:
    return {
        "architecture": cell.architecture,
        "name": cell.name,
        "failure": result.failure,
        "metrics": result.metrics,
        "networks": str(result.folder.artifacts),
    }


def _describe(cell: "TrainingCell", result: "TrainingResult") -> str:
    if result.failure:
        return f"{cell.name}: failed: {result.failure}"
    return (
        f"{cell.name}: test accuracy {result.metrics['test_accuracy']:.4f} "
        f"(epoch {result.metrics['best_epoch']:.0f}); networks in {result.folder.artifacts}"
    )
