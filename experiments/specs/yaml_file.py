"""Reading YAML files that people write: plain data, every key once."""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, NoReturn

import yaml

from nas.foundation.errors import UserError
from nas.foundation.files import read_text

_MAX_BYTES = 300_000
"""People write less, and reading more takes many seconds."""


class _StrictLoader(yaml.SafeLoader):
    """A safe loader that refuses surprises.

    These are: duplicate keys, aliases (a few can expand to gigabytes), tags (including those of YAML
    itself), numbers in base 60 (`1:30` would be 90) and base 8 (`010` would be 8), integers of more than 64
    bits.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            _refuse("aliases are not supported; write the value out", event)
        if getattr(event, "tag", None) is not None:
            _refuse("tags (!) are not supported; write plain values", event)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                _refuse(f"key {key!r} is not text; quote it or remove it", key_node)
            if key in seen:
                _refuse(f"'{key}' is there twice; remove one", key_node)
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        """Constructs an integer or a float the way a person reads it."""
        if ":" in node.value:
            _refuse("numbers in base 60 are not supported; quote it, or write it out", node)
        if node.tag.endswith(":float"):
            return float(self.construct_yaml_float(node))
        if re.match(r"[-+]?0[0-9_]", node.value):
            _refuse("YAML reads a number that begins with 0 in base 8; drop the 0, or quote text", node)
        number = int(self.construct_yaml_int(node))
        if not -(2**63) <= number < 2**63:
            _refuse("an integer of more than 64 bits; write a smaller one", node)
        return number


def _refuse(problem: str, where: Any) -> NoReturn:
    raise yaml.constructor.ConstructorError(None, None, problem, where.start_mark)


for _type in ("int", "float"):
    _StrictLoader.add_constructor(f"tag:yaml.org,2002:{_type}", _StrictLoader.construct_number)


def read_yaml_file(path: Path) -> str:
    """Reads the text of a YAML file.

    Raises:
        UserError: the file is missing, or is not text.
    """
    return read_text(path, "a YAML file", _MAX_BYTES)


def read_yaml_text(text: str) -> Any:
    """Reads a value.

    Raises:
        YAMLError, ValueError, RecursionError: it is not YAML, or has a tag, an alias or a duplicate key.
    """
    return yaml.load(text, _StrictLoader)


def parse_yaml(text: str, path: Path) -> dict[str, Any]:
    """Reads a mapping from the text of a YAML file.

    Args:
        path: the file, for errors.

    Raises:
        UserError: it is not YAML, or has a tag, an alias or a duplicate key.
    """
    try:
        content = read_yaml_text(text)
    except yaml.YAMLError as error:
        raise UserError(f"{path}{_describe(error)}") from None
    except RecursionError:
        raise UserError(f"{path}: nested too deeply; is it the file you mean?") from None
    except ValueError as error:
        raise UserError(f"{path}: not valid YAML: {error}; correct it") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: must be a mapping of fields, for instance `experiment: smoke`")
    return content


def _describe(error: yaml.YAMLError) -> str:
    if not isinstance(error, yaml.MarkedYAMLError):
        return f": not YAML: {' '.join(str(error).split())}; correct it"
    mark = error.problem_mark or error.context_mark
    place = f", line {mark.line + 1}" if mark else ""
    problem = " ".join((error.problem or str(error)).split())
    if problem.startswith("but ") and error.context:
        problem = f"{error.context}, {problem}"
    if "could not determine a constructor for the tag" in problem:
        problem = "`<<` and `=` have a special meaning in YAML; quote them or write the value out"
    return f"{place}: {problem}"
