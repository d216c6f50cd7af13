"""Validation errors as one line for people, and reading JSON files."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from nas.foundation.errors import UserError
from nas.foundation.files import read_text

_MAX_JSON_BYTES = 50_000_000
"""The table of the largest space takes two million bytes."""


def first_error(error: ValidationError) -> str:
    """The first problem of a pydantic error, as `field: value: what is wrong`."""
    return describe_error(error.errors()[0])


def describe_error(details: ErrorDetails) -> str:
    """One of `ValidationError.errors()`, as `field: value: what is wrong`."""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in details["loc"])
    # Not all dots: they may be the name of the field.
    field = path.removeprefix(".")
    message = details["msg"].removeprefix("Value error, ")
    if details["type"] == "extra_forbidden":
        return f"{field}: unknown field; remove it or correct its spelling"
    if details["type"] == "missing":
        return f"{field}: missing; add it"
    if details["type"] == "value_error" and not field:
        return message
    return f"{field}: {show_value(details['input'])}: {message}" if field else message


def show_value(value: Any) -> str:
    """A value as Python writes it, cut where it gets long."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def read_json(path: str | Path, what: str) -> Any:
    """Reads a JSON file.

    Raises:
        UserError: the file cannot be read, is not JSON, or repeats a key.
    """
    text = read_text(path, what, _MAX_JSON_BYTES)
    try:
        return parse_json(text)
    except ValueError as error:
        raise UserError(f"{path}: not {what}: it is not JSON ({error}); rebuild it") from None


def parse_json(text: str | bytes) -> Any:
    """Parses JSON.

    Raises:
        ValueError: it is not JSON, or repeats a key.
    """
    try:
        # Numbers that are too long to convert raise a ValueError, too.
        return json.loads(text, object_pairs_hook=_without_repeats)
    except RecursionError as error:
        raise ValueError(str(error)) from None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        num_times = Counter(name for name, _ in pairs)
        repeated = next(name for name in content if num_times[name] > 1)
        raise ValueError(f"'{repeated}' is there twice")
    return content
