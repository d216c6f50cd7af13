"""Escaping, checked with a parser of Markdown: a name is shown as it is, and nothing else comes of it."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from nas.foundation.errors import UserError
from nas.foundation.escaping import escape_markdown, escape_unprintable, safe_line

PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])

FORGERIES = (
    "cat |\n| Test accuracy | 99.9 %",
    "cat\n# Heading",
    "![image](http://evil.example/x.png)",
    "[link](javascript:alert(1))",
    "<img src=x onerror=alert(1)>",
    "<http://evil.example>",
    "&lt;b&gt; &#35; &amp;",
    "**bold** _it_ `code` ~~gone~~ $x$",
    "\\|\\",
    "a\r\n\r\n---\n",
    "trailing \\",
    "snake_case and _private_ __init__",
    "[a][b] [c]: http://x",
)


def tokens_of(markdown: str) -> list[Token]:
    return PARSER.parse(markdown)


def shown_by(inline: Token) -> str:
    """The text of a paragraph, heading or cell; that there is nothing but text is checked."""
    assert {child.type for child in inline.children or ()} <= {"text"}
    return "".join(child.content for child in inline.children or ())


@given(st.text())
def test_any_text_is_shown_as_it_is_and_becomes_nothing_else(text: str) -> None:
    shown = escape_unprintable(f"a {text} z")
    _, inline, _ = tokens_of(f"a {escape_markdown(text)} z")
    assert shown_by(inline) == shown


@pytest.mark.parametrize("text", FORGERIES)
def test_names_that_try_to_be_more_are_only_names(text: str) -> None:
    shown = escape_unprintable(text)
    _, inline, _ = tokens_of(f"a {escape_markdown(text)} z")
    assert shown_by(inline) == f"a {shown} z"
    heading = tokens_of(f"# a {escape_markdown(text)} z")
    assert [token.type for token in heading] == ["heading_open", "inline", "heading_close"]
    assert shown_by(heading[1]) == f"a {shown} z"
    cell = escape_markdown(text)
    table = tokens_of(f"| x | y |\n|---|---|\n| {cell} | {cell} |")
    cells = [token for token in table if token.type == "inline"]
    assert [shown_by(token) for token in cells] == ["x", "y", shown.strip(), shown.strip()]


@given(st.text())
@example("\x1b[2J\x1b]0;title\x07\u202e\u2028")
def test_a_line_is_one_line_of_printable_characters(text: str) -> None:
    for line in (safe_line(text), str(UserError(text))):
        assert line.isprintable()


def test_a_text_without_anything_special_is_not_changed() -> None:
    plain = "T-shirt/top, 0.62 [0.61, 0.64], snake_case (a & b) > c: 12 %"
    assert escape_markdown(plain) == plain
