"""Escaping: text from files, stores and people, for the medium that shows it."""

import re

from nas.foundation.uris import redact

_MARKDOWN = re.compile(
    # Code, emphasis, HTML, columns, strikethrough, formulas, the end of a heading; entities; bare links.
    r"[\\`*<|~$#]|&(?=#?\w+;)|:(?=//)|(?<=www)\.|"
    # An underscore within a word is just that, and brackets without parentheses are no link.
    r"(?<![^\W_])_|_(?![^\W_])|(?<=\])\(",
    re.IGNORECASE,
)


def escape_unprintable(text: str) -> str:
    """The text in one line, with everything escaped that would move the cursor or break the line."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )


def safe_line(text: str) -> str:
    """The text in one line that may be shown, logged or stored: nothing unprintable, no secrets of URIs."""
    return escape_unprintable(redact(text))


def escape_markdown(text: str) -> str:
    """The text as Markdown that shows just this text, within a line or in a cell of a table.

    At the beginning of a line it could still become a heading or a list: put something before it.
    """
    return _MARKDOWN.sub(r"\\\g<0>", escape_unprintable(text))
