"""Settings of the command line: `--set KEY=VALUE` changes the content of a YAML file before it is checked."""

import copy
import difflib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from experiments.specs.yaml_file import read_yaml_text
from nas.config import PATH_FIELDS, SearchConfig, TrainConfig
from nas.foundation.errors import UserError
from nas.foundation.escaping import safe_line
from nas.foundation.validation import show_value

_MAX_SHOWN = 60


@dataclass(frozen=True)
class Setting:
    """One `--set KEY=VALUE`.

    Attributes:
        key: where the value goes; dots lead into sections, numbers into lists: `base.num_epochs`,
            `cells.0.depth`.
        text: as it was written, KEY=VALUE.
    """

    key: str
    value: Any
    text: str

    @classmethod
    def parse(cls, text: str, example: str) -> "Setting":
        """Reads KEY=VALUE; the value is YAML, and a number like 1e-5 is one here.

        Args:
            example: for errors.

        Raises:
            UserError: there is no `=`, no value, or the value is not YAML.
        """
        key, sign, value = text.partition("=")
        if not sign:
            raise UserError(f"--set {text}: write {example}")
        if not value.strip():
            raise UserError(f"--set {text}: no value; write {key}=null for none")
        return cls(key, _with_paths_from_here(key.rpartition(".")[2], _read_value(key, value)), text)

    def __str__(self) -> str:
        shown = self.text if len(self.text) <= _MAX_SHOWN else f"{self.text[:_MAX_SHOWN]}..."
        return f"--set {safe_line(shown)}"

    def apply(self, content: dict[str, Any], sections: Sequence[str]) -> None:
        """Changes the content of a YAML file; sections and mappings that are missing are added.

        Args:
            sections: the names that a file may have at its top.

        Raises:
            UserError: there is no such section or entry.
        """
        first, *rest = self.key.split(".")
        if first not in sections:
            raise UserError(f"{self}: {self._explain_section(first, sections)}")
        *path, last = [first, *rest]
        place: Any = content
        for name in path:
            if isinstance(place, dict):
                place.setdefault(name, {})
            place = place[self._entry(name, place)]
            if not isinstance(place, dict | list):
                raise UserError(f"{self}: '{name}' holds no fields to set")
        place[self._entry(last, place)] = self.value

    def _entry(self, name: str, entries: dict[str, Any] | list[Any]) -> str | int:
        if isinstance(entries, dict):
            return name
        if not (name.isascii() and name.isdecimal()) or len(name) > 5 or int(name) >= len(entries):
            raise UserError(
                f"{self}: '{name}': this list has {len(entries)} entries; number them from 0 to "
                f"{len(entries) - 1}, or set the whole list"
            )
        return int(name)

    def _explain_section(self, name: str, sections: Sequence[str]) -> str:
        if name in SearchConfig.model_fields or name in TrainConfig.model_fields:
            return f"'{name}' is a field within a section; write base.{name}=... or grid.{name}=[...]"
        close = difflib.get_close_matches(name, sections, n=1)
        return f"'{name}' is no section; {f'did you mean {close[0]!r}?' if close else _list(sections)}"


def _list(sections: Sequence[str]) -> str:
    return f"choose among {', '.join(sections)}"


def _read_value(key: str, text: str) -> Any:
    try:
        # YAML takes 1e-5 for text; who writes it on a command line means the number.
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return read_yaml_text(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise UserError(
            f"--set {safe_line(key)}: {show_value(text)}: not a value in YAML; quote text"
        ) from None


def _with_paths_from_here(field: str, value: Any) -> Any:
    """A path, or a list of them, made absolute: on a command line it is relative to the current folder."""
    if field not in PATH_FIELDS or value == "measure":
        return value
    if isinstance(value, list):
        return [_with_paths_from_here(field, each) for each in value]
    return str(Path.cwd() / os.path.expanduser(value)) if isinstance(value, str) else value


def apply_settings(
    content: dict[str, Any], settings: Sequence[Setting], sections: Sequence[str]
) -> dict[str, Any]:
    """The content of a YAML file as settings change it, in their order; see `Setting.apply`."""
    changed = copy.deepcopy(content)
    for setting in settings:
        setting.apply(changed, sections)
    return changed


def changed_text(text: str, content: dict[str, Any], settings: Sequence[Setting]) -> str:
    """A YAML file as settings change it: its first comment, a line for each setting, and the content.

    Args:
        text: of the file.
        content: as changed.
    """
    comment = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        comment.append(line)
    changes = [f"# Changed by {setting}" for setting in settings]
    return "\n".join([*comment, *changes, yaml.safe_dump(content, sort_keys=False, allow_unicode=True)])


@contextmanager
def naming_settings(settings: Sequence[Setting], path: Path) -> Iterator[None]:
    """Lets errors about a YAML file name the settings that changed it."""
    try:
        yield
    except UserError as error:
        where, changes = f"{safe_line(str(path))}: ", " ".join(map(str, settings))
        lines = str(error).splitlines()
        if not settings or not any(line.startswith(where) for line in lines):
            raise
        raise UserError(
            *(line.replace(where, f"{where[:-2]} with {changes}: ", 1) for line in lines)
        ) from None
