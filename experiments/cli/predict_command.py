"""`tfnas predict`: classes and probabilities of image files."""

import json
from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("images", metavar="IMAGE...", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--top", type=click.IntRange(1), default=3, show_default=True, help="Classes an image.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def predict(model: Path, images: tuple[Path, ...], top: int, as_json: bool) -> int:
    """Says which class each IMAGE shows, and how probable that is by MODEL.

    MODEL is an exported ONNX file, or best.pt of a training. A broken image is named and the others are still
    answered; the exit code is then 1.

    Example: tfnas predict results/training/exports/model.onnx photo.jpg
    """
    # Here, since torch takes seconds to import and `--help` does not need it.
    from nas.data.image_files import BrokenImageError
    from nas.foundation.errors import escape_unprintable
    from nas.training.prediction import load_predictor

    predictor = load_predictor(model)
    answers: list[dict[str, Any]] = []
    num_broken = 0
    for path in images:
        try:
            probabilities_K = predictor.predict(path)
        except BrokenImageError as error:
            click.echo(f"tfnas: {error}", err=True)
            num_broken += 1
            continue
        best = probabilities_K.argsort()[::-1][:top]
        classes = [
            {"class": predictor.metadata.class_names[label], "probability": float(probabilities_K[label])}
            for label in best
        ]
        answers.append({"image": str(path), "classes": classes})
        if not as_json:
            said = ", ".join(f"{entry['class']} {entry['probability']:.1%}" for entry in classes)
            click.echo(escape_unprintable(f"{path}: {said}"))
    if as_json:
        click.echo(json.dumps(answers, indent=1))
    return 1 if num_broken else 0
