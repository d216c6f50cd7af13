"""`tfnas init`: write a YAML file to start from."""

import re
import sys
from importlib.resources import files
from pathlib import Path
from shlex import quote
from typing import Any

import click

from experiments.console import UserPath, echo, format_duration
from experiments.output_paths import check_output_file
from experiments.templates.question import QUESTIONS
from nas.foundation.errors import UserError


class _Asked(click.Option):
    """An option that is asked for in a terminal, and needed where nobody can answer."""

    def prompt_for_value(self, ctx: click.Context) -> Any:
        try:
            return super().prompt_for_value(ctx)
        except click.Abort:
            if sys.stdin.isatty():
                raise
        # Options on the command line come first, so those that are left follow this one.
        left = [one for one in ctx.command.params if isinstance(one, _Asked) and one.name not in ctx.params]
        flags = ", ".join(one.opts[0] for one in left)
        click.echo()  # ends the line of the question
        raise UserError(f"init: no answer to its questions; run it in a terminal, or add {flags}")


@click.command("init")
@click.argument("file", required=False, type=UserPath())
@click.option(
    "--images",
    cls=_Asked,
    metavar="subset|fashion-mnist|FOLDER",
    prompt="Images (subset: bundled; fashion-mnist: Debian's; or a folder with a folder per class)",
    default="subset",
    show_default=True,
    help="Images to search on: the bundled subset of Fashion-MNIST, the full one of Debian's package "
    "dataset-fashion-mnist, or a folder with a folder per class.",
)
@click.option(
    "--question",
    cls=_Asked,
    type=click.Choice(list(QUESTIONS)),
    prompt="Question",
    default="targets",
    show_default=True,
    help="What to compare: latency targets, samplings, depth spaces, widths scaled or not, search methods.",
)
@click.option(
    "--device",
    cls=_Asked,
    type=click.Choice(["cpu", "cuda"]),
    prompt="Device",
    default="cpu",
    show_default=True,
    help="What computes.",
)
@click.option(
    "--hours",
    cls=_Asked,
    type=click.FloatRange(min=0, min_open=True, max=10_000),
    prompt="Hours to spend",
    default=1.0,
    show_default=True,
    help="Budget; it decides the number of seeds.",
)
@click.option("--force", is_flag=True, help="Overwrite files that are there.")
def init(file: Path | None, images: str, question: str, device: str, hours: float, force: bool) -> None:
    """Write a commented YAML file to start from: a question, images, a protocol, and what it costs.

    FILE is QUESTION.yaml by default; its name names the experiment. A second file, FILE_train.yaml, trains
    the networks that its searches find. What is not given is asked. The protocol
    is the shortest that docs/protocol.md has for the images; the budget decides the number of seeds, between
    one and the twelve of a verdict, by the seconds that a step took here (docs/protocol.md).

    Example: tfnas init my.yaml --images subset --question sampling --device cpu --hours 0.5
    """
    # Imported here: torch takes seconds to import, and `--help` and the questions need none of it.
    from analysis.measures.sign_flips import MIN_VALUES
    from analysis.verdicts.claim import Claim
    from experiments.places.place import ThisMachine
    from experiments.places.resources import Resources
    from experiments.specs.experiment_spec import EXPERIMENT_NAME
    from experiments.specs.grid_file import load_grid
    from experiments.templates.chosen_images import ChosenImages
    from experiments.templates.small_protocol import SmallProtocol
    from experiments.templates.template_file import TemplateFile

    path = file or Path(f"{question}.yaml")
    if path.suffix not in (".yaml", ".yml") or not re.fullmatch(EXPERIMENT_NAME, path.stem):
        raise UserError(f"{path}: name it NAME.yaml; NAME may have letters, digits, '.', '_' and '-'")
    template = TemplateFile(
        path,
        QUESTIONS[question],
        SmallProtocol.of(ChosenImages.find(images)),
        device,
        3600 * hours,
        ThisMachine(Resources(), "init").num_slots() if device == "cpu" else 1,
        Path(str(files("tune_configs") / "schema.json")),
        MIN_VALUES,
        Claim.model_fields["num_seeds"].default,
    )
    for each in template.files:
        if each.exists() and not force:
            raise UserError(f"{each}: is there already; choose another name, or add --force to overwrite it")
        check_output_file(each, "FILE")
    for each, text in template.files.items():
        each.write_text(text, encoding="utf-8")
        load_grid(each)
        echo(f"Wrote {each}")
    if template.cost_s > template.budget_s:
        cost, budget = format_duration(template.cost_s), format_duration(template.budget_s)
        echo(f"warning: one seed takes about {cost}, more than the budget of {budget}", err=True)
    echo(f"See what it would run: tfnas launch {quote(str(path))} --dry-run")
