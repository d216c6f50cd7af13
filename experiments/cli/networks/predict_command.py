"""`tfnas predict`: classes and probabilities of image files."""

import json
import os
from pathlib import Path
from typing import Any

import click

from experiments.console import UserPath, echo


@click.command()
@click.argument("model")
@click.argument("images", metavar="IMAGE...", type=UserPath(), nargs=-1, required=True)
@click.option(
    "--top", type=click.IntRange(1), default=3, show_default=True, help="Number of classes to show per image."
)
@click.option(
    "--out",
    type=UserPath(file_okay=False),
    help="Folder of a run, with its mlflow.db.  [default: where the run is]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def predict(model: str, images: tuple[Path, ...], top: int, out: Path | None, as_json: bool) -> int:
    """Classify each IMAGE with MODEL and print the probabilities.

    MODEL is an exported ONNX file, best.pt of a training, or `run:RUN`: a training in MLflow by its name, its
    id or the first digits of it. Broken images are named and skipped; the exit code is then 1.

    Example: tfnas predict results/training/exports/model.onnx photo.jpg
    """
    # Imported here, since `--help` needs none of it.
    from nas.data.image_decoding import BrokenImageError
    from nas.training.prediction import load_predictor

    predictor = load_predictor(_find_model(model, out))
    answers: list[dict[str, Any]] = []
    num_broken = 0
    for path in images:
        try:
            probabilities_K = predictor.predict(path)
        except BrokenImageError as error:
            echo(f"tfnas: {error}", err=True)
            num_broken += 1
            continue
        best = probabilities_K.argsort()[::-1][:top]
        classes = [
            {"class": predictor.metadata.class_names[label], "probability": float(probabilities_K[label])}
            for label in best
        ]
        answers.append({"image": str(path), "classes": classes})
        if not as_json:
            shown = ", ".join(f"{entry['class']} {entry['probability']:.1%}" for entry in classes)
            echo(f"{path}: {shown}")
    if as_json:
        click.echo(json.dumps(answers, indent=1))
    return 1 if num_broken else 0


def _find_model(reference: str, out: Path | None) -> Path:
    """The file of a model; that of a run is downloaded into the output folder."""
    from experiments.tracking.short_names import RUN_PREFIX, as_run, find_folder

    out = out or find_folder([reference], Path("results/training"))
    run = as_run(reference, out)
    if not run.startswith(RUN_PREFIX):
        return Path(os.path.expanduser(reference))
    # Imported here: they know how networks are trained, and so torch.
    from experiments.tracking.named_run import find_run
    from nas.training.training import BEST_FILE

    return find_run(run, out).fetch(BEST_FILE, f"train it first: tfnas train {run}")
