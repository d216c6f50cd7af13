"""Reading a YAML file that a person wrote: data only, and nothing said twice."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from nas.errors import UserError

_MAX_BYTES = 1_000_000


class _StrictLoader(yaml.SafeLoader):
    """A safe loader that refuses duplicate keys, and aliases (a few can stand for gigabytes)."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(
                None, None, "aliases are not supported; write the value out", event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is not text; quote it or remove it", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"'{key}' is there twice; remove one", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a YAML file whose content is a mapping.

    Raises:
        UserError: the file is missing, is not YAML, has a tag, an alias or a duplicate key.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UserError(f"{path}: larger than {_MAX_BYTES} bytes; is it the file you mean?")
        text = path.read_text(encoding="utf-8")
        content = yaml.load(text, _StrictLoader)
    except OSError as error:
        raise UserError(f"{path}: cannot read it: {error.strerror}; check the path") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not text in UTF-8; is it the file you mean?") from None
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
    if "could not determine a constructor for the tag" in problem:
        problem = "tags (!) are not supported; write plain values"
    return f"{place}: {problem}"
