"""Notes on the fields of config records, written where a field is defined, for help and checks.

A note is metadata of the field's type: `Annotated[Positive, Unit("ms"), Origin("TF-NAS, latency")]`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic.fields import FieldInfo


@dataclass(frozen=True)
class Unit:
    """The unit of a number."""

    name: str


@dataclass(frozen=True)
class Origin:
    """Where the field, or its default, comes from."""

    name: str


@dataclass(frozen=True)
class Needs:
    """What a field needs to have an effect.

    Attributes:
        condition: for people, as they would write it in YAML.
        is_met: whether a config has it.
        is_required: whether a value other than the default is refused without it. Such a field is part of
            what identifies a result either way.
    """

    condition: str
    is_met: Callable[[Any], bool]
    is_required: bool = False


Note = TypeVar("Note", Unit, Origin, Needs)


def note_of(field: FieldInfo, kind: type[Note]) -> Note | None:
    """The note of a kind on a field, if there is one."""
    return next((note for note in field.metadata if isinstance(note, kind)), None)
