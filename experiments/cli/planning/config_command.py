"""`tfnas config`: the fields of a YAML file, and its schema for editors."""

import json
from textwrap import indent
from typing import TYPE_CHECKING

import click

from experiments.console import echo, make_console, say
from nas.foundation.errors import UserError

if TYPE_CHECKING:
    from experiments.specs.field_reference import FieldEntry

PAGE_HEADING = """# Fields of a YAML file

`make reference` writes this page, from where the fields are defined. `tfnas config FIELD` shows one of them,
and an editor all, with the schema `tune_configs/schema.json`: each shipped file names it in its first line.

*needs* is what a field needs to have an effect: a launch refuses fields that have none, or warns of them. The
shipped files of `tune_configs/` show how sections go together; `tfnas init` writes a file to start from.
`tfnas launch FILE --set base.num_epochs=10 --set grid.seed=[0,1]` changes fields for one launch.
"""


@click.command()
@click.argument("field", required=False)
@click.option("--schema", is_flag=True, help="Print a JSON schema of YAML files, for editors.")
@click.option("--markdown", is_flag=True, help="Print the reference of all fields as docs/config.md has it.")
def config(field: str | None, schema: bool, markdown: bool) -> None:
    """Show the fields of a YAML file: type, range, default, unit, source, and what they need for an effect.

    FIELD is a name, such as num_epochs, or a name with its section, such as study.budget.hours. Without it,
    all fields are listed.

    Example: tfnas config final_temperature
    """
    if sum((field is not None, schema, markdown)) > 1:
        raise UserError("FIELD, --schema and --markdown: give one of them")
    # Imported here: torch takes seconds to import, and `--help` does not need it.
    from analysis.verdicts.claim import Claim
    from experiments.specs.field_reference import field_entries, find_entries, reference_page

    if schema:
        from experiments.specs.yaml_schema import yaml_schema

        click.echo(json.dumps(yaml_schema(Claim), indent=1))
        return
    entries = field_entries(Claim)
    if markdown:
        click.echo(reference_page(entries, PAGE_HEADING), nl=False)
    elif field is None:
        _list(entries)
    else:
        _show(find_entries(field, entries))


def _show(entries: "list[FieldEntry]") -> None:
    for number, entry in enumerate(entries):
        if number:
            echo("")
        echo(f"{entry.name} ({entry.section})")
        for line in indent(entry.text, "  ").splitlines():
            echo(line)
        for heading, fact in entry.facts.items():
            echo(f"  {heading + ':':9}{fact}")


def _list(entries: "list[FieldEntry]") -> None:
    from rich.table import Table

    console = make_console()
    for section in dict.fromkeys(entry.section for entry in entries):
        table = Table("field", "default", "what it is", title=section, title_justify="left")
        for entry in entries:
            if entry.section == section:
                table.add_row(entry.name, entry.default or "-", entry.text.partition("\n")[0])
        console.print(table)
    say(console, "More about one: tfnas config FIELD")
