"""`tfnas import-search`: the network of a search checkpoint of the published implementation."""

import json
from pathlib import Path

import click

from experiments.console import UserPath, echo
from experiments.output_paths import check_output_file
from nas.foundation.errors import UserError

_FILE = UserPath(dir_okay=False)


@click.command()
@click.argument("source", metavar="FILE", type=_FILE)
@click.option("--out", type=_FILE, required=True, help="Architecture file (JSON) to write.")
@click.option("--space", default="paper", show_default=True, help="Space of the search.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def import_search(source: Path, out: Path, space: str, as_json: bool) -> None:
    """Import the network that a published search arrived at, as an architecture file.

    FILE is a checkpoint of the TF-NAS repository, searched_model_XX.pth.tar. It is read without running any
    code in it. The architecture file can be used wherever a command takes ARCH.

    Example: tfnas import-search searched_model_90.pth.tar --out network.json
    """
    # Imported here: torch takes seconds to import, and `--help` does not need it.
    from nas.space.macro_space import get_space
    from nas.space.published_files import PUBLISHED_SUFFIX
    from nas.space.search_checkpoint import load_search_checkpoint

    check_output_file(out, "--out")
    if out.suffix == PUBLISHED_SUFFIX:
        raise UserError(f"{out}: names that end in {PUBLISHED_SUFFIX} mean published files; choose another")
    if out.exists() and out.samefile(source):
        raise UserError(f"{out}: is the checkpoint itself; choose another file")
    architecture = load_search_checkpoint(source, get_space(space))
    try:
        architecture.save(out)
    except OSError as error:
        raise UserError(f"{out}: cannot write it ({error.strerror}); choose another file") from None
    if as_json:
        depths = [len(choices) for choices in architecture.stages]
        summary = {"path": str(out), "space": space, "depth": architecture.depth, "stage_depths": depths}
        click.echo(json.dumps(summary, indent=1))
    else:
        echo(f"{out}: a network of '{space}' with {architecture.depth} searchable layers")
