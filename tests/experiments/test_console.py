"""What commands print: names of others are only shown, whatever they hold."""

import pytest
from rich.table import Table

from experiments.console import echo, make_console, say

HOSTILE = "bi\x1b[2J\x1b]0;owned\x07\rfinished [red]:boom:\nsecond line http://me:hidden@host"
SHOWN = "bi\\x1b[2J\\x1b]0;owned\\x07\\rfinished [red]:boom:\\nsecond line http://***@host"


@pytest.fixture(params=["terminal", "pipe"], autouse=True)
def _kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TTY_COMPATIBLE", "1" if request.param == "terminal" else "0")
    assert make_console().is_terminal == (request.param == "terminal")


def test_lines_show_names_without_doing_what_they_say(capsys: pytest.CaptureFixture[str]) -> None:
    say(make_console(), f"{HOSTILE}: epoch 1")
    make_console().print(HOSTILE, highlight=False)
    echo(HOSTILE)
    echo(HOSTILE, err=True)
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [f"{SHOWN}: epoch 1", SHOWN, SHOWN]
    assert printed.err.splitlines() == [SHOWN]


def test_tables_show_names_without_doing_what_they_say(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(HOSTILE, title=HOSTILE, caption=HOSTILE)
    table.add_row(HOSTILE)
    make_console().print(table)
    printed = capsys.readouterr().out
    # The styles of the table itself use the same escape character.
    assert printed.count(SHOWN) == 4
    for part in ("\x1b[2J", "\x1b]", "\x07", "\r", "hidden"):
        assert part not in printed
