"""From what a validator says to the one line that a person reads."""

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nas.errors import UserError


def first_error(error: ValidationError) -> str:
    """The first complaint of a pydantic error as `field: value: what is wrong`."""
    details = error.errors()[0]
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in details["loc"]).lstrip(
        "."
    )
    message = details["msg"].removeprefix("Value error, ")
    if details["type"] == "extra_forbidden":
        return f"{field}: unknown field; remove it or correct its spelling"
    if details["type"] == "missing":
        return f"{field}: missing; add it"
    if details["type"] == "value_error" and not field:
        return message
    value = repr(details["input"])
    value = value if len(value) <= 60 else value[:57] + "..."
    return f"{field}: {value}: {message}" if field else message


def read_json(path: str | Path, what: str) -> Any:
    """Reads a JSON file.

    Raises:
        UserError: the file is missing, cannot be read, or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot read {what}: {error.strerror}; check the path") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{path}: not {what}: it is not JSON ({error}); make it again") from None
