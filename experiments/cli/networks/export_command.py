"""`tfnas export`: export a trained network."""

import json
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import click

from experiments.console import UserPath, echo
from experiments.output_paths import check_output_file

if TYPE_CHECKING:
    from nas.training.export import ExportFormat


@click.command()
@click.argument("architecture", metavar="ARCH")
@click.option(
    "--checkpoint",
    type=UserPath(dir_okay=False),
    help="Trained network, best.pt or last.pt of a training.  [default: best.pt of the run]",
)
@click.option(
    "--format",
    "export_format",
    type=click.Choice(["onnx", "torch-export", "state-dict"]),
    default="onnx",
    show_default=True,
    help="Export the whole network, from pixels to logits, or its weights alone.",
)
@click.option("--file", "path", type=UserPath(), help="File to write.  [default: OUT/exports/NAME]")
@click.option(
    "--out",
    type=UserPath(file_okay=False),
    help="Folder of the training, with its mlflow.db.  [default: where the run is, or results/training]",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def export(
    architecture: str,
    checkpoint: Path | None,
    export_format: "ExportFormat",
    path: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Export a trained network, with a model card.

    ARCH is `run:RUN`, a training in MLflow by its name, its id or the first digits of it; file, card and a
    model are then logged to that run, and the model gets a version in the model registry. Or ARCH is an
    architecture (a file, JSON or a published .config, or a name) whose weights --checkpoint holds. The
    exported file is read back and compared with the network on real images.

    Example: tfnas export run:0123abcd --format onnx
    """
    # Imported here: MLflow and torch take seconds to import, and `--help` needs neither.
    from experiments.products.exporting import export as run_export
    from experiments.products.exporting import find_source
    from experiments.tracking.short_names import find_folder
    from nas.training.export import SUFFIXES

    out = out or find_folder([architecture], Path("results/training"))
    source = find_source(architecture, checkpoint, out)
    name = source.run.name if source.run else Path(architecture).stem
    path = path or out / "exports" / f"{name}{SUFFIXES[export_format]}"
    check_output_file(path, "--file", makes_folder=True)
    exported = run_export(source, path, export_format)
    if as_json:
        click.echo(json.dumps(asdict(exported), indent=1, default=str))
        return
    echo(f"{exported.path}: logits within {exported.max_error:.1e}, on {exported.checked_on}")
    echo(f"{exported.card}: model card")
    if exported.registered is not None:
        echo(f"{exported.registered}: its version in the model registry")
    if export_format == "onnx":
        echo(f"classify images: tfnas predict {quote(str(exported.path))} IMAGE")
    if source.run is not None:
        command = f"mlflow models serve --model-uri {exported.model_uri} --env-manager local"
        echo(f"serve it: MLFLOW_TRACKING_URI={quote(source.run.client.tracking_uri)} {command}")
