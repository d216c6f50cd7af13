"""Tables of known accuracies that are wrong."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.hostile.command import Command
from tests.support.nas_bench_macro import synthetic_content, write_table

Content = dict[str, Any]

# Why it is wrong, what is changed in a sound record, and what must be said about it.
TABLES: dict[str, tuple[Callable[[Content], Any], str]] = {
    "no network": (lambda t: t.clear(), "lacks 6,561 of the 6,561 networks"),
    "a network that is missing": (lambda t: t.pop("01201201"), "lacks 1 of the 6,561 networks"),
    "a network too many": (lambda t: t.update({"0120120": t["01201201"]}), "'0120120'"),
    "a network of an unknown operator": (lambda t: t.update({"01201203": t["01201201"]}), "'01201203'"),
    "digits of another script": (lambda t: t.update({"٠١٢٠١٢٠١": t["01201201"]}), "not a network"),
    "a name that breaks the line": (lambda t: t.update({"0120120\n": t["01201201"]}), "not a network"),
    "a name of a million characters": (lambda t: t.update({"0" * 1_000_000: {}}), "not a network"),
    "a million networks": (lambda t: t.update({f"{number}": 0 for number in range(10**6)}), "'0'"),
    "a network that is null": (lambda t: t.update({"01201201": None}), "01201201: None"),
    "a network without accuracies": (lambda t: _network(t).pop("test_acc"), "01201201.test_acc: missing"),
    "a training too few": (lambda t: _network(t)["test_acc"].pop(), "01201201.test_acc[2]: missing"),
    "a training too many": (lambda t: _network(t)["test_acc"].append(90.0), "01201201.test_acc: "),
    "an accuracy that is NaN": (lambda t: _accuracy(t, float("nan")), "01201201.test_acc[0]: nan"),
    "an accuracy that is infinite": (lambda t: _accuracy(t, float("inf")), "01201201.test_acc[0]: inf"),
    "an accuracy below zero": (lambda t: _accuracy(t, -0.1), "01201201.test_acc[0]: -0.1"),
    "an accuracy above 100 %": (lambda t: _accuracy(t, 100.1), "01201201.test_acc[0]: 100.1"),
    "an accuracy that is text": (lambda t: _accuracy(t, "90"), "01201201.test_acc[0]: '90'"),
    "an accuracy that is true": (lambda t: _accuracy(t, True), "01201201.test_acc[0]: True"),
    "accuracies that are text": (lambda t: _network(t).update(test_acc="abc"), "01201201.test_acc: 'abc'"),
    "two accuracies of one network": (lambda t: _accuracy(t, 1.0), "is the same network"),
}


def _network(table: Content) -> Any:
    """A copy of its own of a network that others are equal to."""
    table["01201201"] = {"test_acc": list(table["01201201"]["test_acc"])}
    return table["01201201"]


def _accuracy(table: Content, value: Any) -> None:
    _network(table)["test_acc"][0] = value


@pytest.mark.parametrize("reason", TABLES)
def test_a_table_that_is_wrong_is_refused_in_one_line(reason: str, command: Command) -> None:
    change, expected = TABLES[reason]
    content = synthetic_content()
    change(content)
    write_table(Path("wrong.json"), content)
    line = command.refuses("benchmark", "wrong.json", "--out", "new")
    assert line.startswith("tfnas: wrong.json: ")
    assert expected in line


@pytest.mark.parametrize("content", [[], "a", None, 1])
def test_a_file_that_is_no_record_is_refused(content: Any, command: Command) -> None:
    write_table(Path("wrong.json"), content)
    assert "no record" in command.refuses("benchmark", "wrong.json")


def test_a_file_that_cannot_be_read_is_refused(command: Command) -> None:
    Path("empty").write_text("")
    Path("huge").touch()
    with Path("huge").open("r+b") as file:
        file.truncate(10**12)
    for path in ("gone", "empty", "huge", "/dev/zero"):
        assert command.refuses("benchmark", path).startswith(f"tfnas: {path}: ")
