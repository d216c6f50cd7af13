"""`tfnas train`: train networks from scratch."""

import json
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from experiments.console import UserPath, echo, make_console, say
from nas.foundation.errors import UserError

if TYPE_CHECKING:
    from experiments.cells.training_cell import TrainingCell
    from experiments.launching.single_training import TrainingResult

_DEFAULT_EXPERIMENT = "training"


@click.command()
@click.argument("architectures", metavar="ARCH...", nargs=-1, required=True)
@click.option(
    "--set",
    "settings",
    metavar="FIELD=VALUE",
    multiple=True,
    help="Set a field of the config, for instance num_epochs=20; VALUE is YAML; may be repeated. Of a YAML "
    "file: base.num_epochs=20, see `tfnas launch`.",
)
@click.option(
    "--experiment", help="MLflow experiment.  [default: the experiment of the search, or 'training']"
)
@click.option(
    "--out", type=UserPath(), help="Output folder.  [default: where the run is, or results/EXPERIMENT]"
)
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def train(
    architectures: tuple[str, ...],
    settings: tuple[str, ...],
    experiment: str | None,
    out: Path | None,
    as_json: bool,
) -> int:
    """Train networks from scratch, one after another, with the published protocol.

    ARCH is an architecture file (JSON, or a published .config), `run:RUN` (a search in MLflow by its name,
    its id or the first digits of it), `experiment:NAME` for all its finished searches, `tf-nas-a`, or a
    network of torchvision: efficientnet_b0, mobilenet_v3_large, mobilenet_v2, mnasnet1_0. Networks made for
    larger images lose their first strides, until the last features are 4 pixels wide.

    The network of a search is trained on the images of that search, and so are those beside it, unless --set
    names others.

    ARCH may also be a single YAML file of trainings; `tfnas launch` runs several of them at a time. Under
    torchrun all processes train one network together, one GPU each, then the next network.

    Rerun the command to resume after an interruption. `tfnas config FIELD` explains a field.

    Exit codes: 0 all done; 1 some failed; 2 wrong input; 130 interrupted.

    Example: tfnas train tf-nas-a efficientnet_b0 --set num_epochs=5 --set num_warmup_epochs=1
    --set batch_size=64 --set lr=0.05
    """
    # Imported here: MLflow and torch take seconds to import; `--help` needs neither, followers no MLflow.
    from nas.foundation.world import join_world
    from nas.training.processes import dismiss, follow

    with join_world() as world:
        if not world.is_first:
            follow(world)
            return 0
        from experiments.launching.dry_run import print_images
        from experiments.launching.single_training import train_here
        from experiments.launching.status import how_to_use

        console = make_console()
        cells, experiment, out = _make_cells(architectures, settings, experiment, out)
        if not as_json:
            print_images(cells, console)
        results = []
        for cell in cells:
            result = train_here(
                cell, experiment, out, lambda message: say(console, message) if not as_json else None, world
            )
            results.append(_summarize(cell, result))
            if not as_json:
                say(console, _describe(cell, result))
        dismiss(world)
    done = [result for result in results if not result["failure"]]
    if as_json:
        click.echo(json.dumps(results, indent=1))
    elif done:
        best = max(done, key=lambda result: float(result["metrics"]["test_accuracy"]))
        for line in how_to_use(best["name"], out):
            say(console, line)
    return 1 if any(result["failure"] for result in results) else 0


def _make_cells(
    architectures: tuple[str, ...], settings: tuple[str, ...], experiment: str | None, out: Path | None
) -> "tuple[list[TrainingCell], str, Path]":
    from experiments.places.place import ThisMachine
    from experiments.places.resources import Resources
    from experiments.specs.experiment_spec import EXPERIMENT_NAME
    from experiments.specs.preparation import Preparation
    from experiments.specs.searched_images import Inheritance
    from experiments.specs.settings import Setting
    from experiments.specs.training_grid import make_training_cell, name_trainings, with_own_names
    from experiments.tracking.named_network import find_networks
    from experiments.tracking.short_names import find_folder
    from nas.config import TrainConfig
    from nas.foundation.device import resolve_device

    if experiment is not None and not re.fullmatch(EXPERIMENT_NAME, experiment):
        raise UserError(
            f"--experiment {experiment}: use letters, digits, '.', '_' and '-'; set other folders with --out"
        )

    if Path(architectures[0]).suffix.lower() in (".yaml", ".yml"):
        if len(architectures) > 1 or experiment:
            raise UserError(f"{architectures[0]}: holds all settings; remove --experiment and other ARCH")
        return _read_cells(Path(architectures[0]), settings, out)
    changes = [Setting.parse(text, "FIELD=VALUE, for instance num_epochs=20") for text in settings]
    fields = {setting.key: setting.value for setting in changes}
    if "architecture" in fields:
        raise UserError("--set architecture: give the architecture as ARCH instead")
    out = out or find_folder(architectures, Path("results") / (experiment or _DEFAULT_EXPERIMENT))
    networks = with_own_names(find_networks(architectures, out))
    inheritance = Inheritance(networks)
    preparation = Preparation(out, ThisMachine(Resources(), "--set"), "--set", partial(echo, err=True))
    cells = []
    for network in networks:
        config = TrainConfig.parse(inheritance.complete(fields, network), "--set")
        # Checks device, network and images before writing anything.
        resolve_device(config.device)
        cells.append(make_training_cell(network, config, preparation, inheritance, {}))
        experiment = experiment or (network.search.experiment if network.search else None)
    return name_trainings(cells), experiment or _DEFAULT_EXPERIMENT, out


def _read_cells(
    path: Path, settings: tuple[str, ...], out: Path | None
) -> "tuple[list[TrainingCell], str, Path]":
    from experiments.places.place import ThisMachine
    from experiments.specs.grid_file import load_grid
    from experiments.specs.settings import Setting, naming_settings

    changes = [Setting.parse(text, "KEY=VALUE, for instance base.num_epochs=20") for text in settings]
    with naming_settings(changes, path):
        grid = load_grid(path, changes).as_trainings()
        out = out or Path("results") / grid.spec.experiment
        place = ThisMachine(grid.spec.resources, str(path))
        return grid.cells(out, place, partial(echo, err=True)), grid.spec.experiment, out


def _summarize(cell: "TrainingCell", result: "TrainingResult") -> dict[str, Any]:
    return {
        "architecture": cell.architecture,
        "name": cell.name,
        "failure": result.failure,
        "metrics": result.metrics,
        "is_selected_on_test_images": cell.config.val_fraction == 0,
        "searched_on": cell.searched_on,
        "networks": str(result.folder.artifacts),
    }


def _describe(cell: "TrainingCell", result: "TrainingResult") -> str:
    if result.failure:
        return f"{cell.name}: failed: {result.failure}"
    selected = "" if cell.config.val_fraction else ", selected on test images"
    searched = f", searched on other images ({cell.searched_on})" if cell.searched_on else ""
    return (
        f"{cell.name}: test accuracy {result.metrics['test_accuracy']:.4f}{selected} "
        f"(epoch {result.metrics['best_epoch']:.0f}){searched}; networks in {result.folder.artifacts}"
    )
