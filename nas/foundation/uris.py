"""URIs: those of SQLite files, and what of a URI may be shown, logged or stored."""

import re
from pathlib import Path
from urllib.parse import quote, unquote

HIDDEN = "***"

# Lengths are limited, so that no text takes a long time.
_USER_INFO = re.compile(
    r"(?<=://)(?:[^\s/?#]*|"
    # A database's password may have slashes, and a person may write one for a server, where it would follow
    # host and port.
    r"(?!(?:(?<=http://)|(?<=https://))(?:\[|[^\s:]*:\d*[/?#]))[^\s/?#@:]*:[^\s@]{0,2000})@"
)
_SECRET_PARAMETER = re.compile(
    # The key of a view in MLflow opens nothing.
    r"(?<=[?&])(?!viewStateShareKey=)([\w.-]{0,60}(?:user|pass|pwd|secret|token|key|signature|credential|odbc_connect)[\w.-]{0,60}=)"
    r"[^&#\s\"'<>]+",
    re.IGNORECASE,
)
_SQLITE = re.compile(r"sqlite(?:\+\w+)?:///([^?]+)")


def redact(text: str, user: str = f"{HIDDEN}@") -> str:
    """The text without the users, passwords, keys and tokens of the URIs in it.

    Args:
        user: takes the place of user and password; empty for links.
    """
    return _SECRET_PARAMETER.sub(rf"\g<1>{HIDDEN}", _USER_INFO.sub(user, text))


def sqlite_uri(path: Path) -> str:
    """The URI of an SQLite file, for MLflow and Optuna; the file may have any name.

    Folders with special characters are quoted, and the slashes behind the first of them as well: MLflow
    makes the folders of the URI as they are written, before it opens the file.
    """
    text = str(path.absolute())
    # Optuna fills in what is in braces.
    special = re.search(r"[^/]*[%?#{}]", text)
    start = special.start() if special else len(text)
    return f"sqlite:///{text[:start]}{quote(text[start:], safe='')}"


def sqlite_path(uri: str) -> Path | None:
    """The file of a URI; None if it is not of an SQLite file."""
    found = _SQLITE.match(uri)
    return Path(unquote(found[1])) if found else None
