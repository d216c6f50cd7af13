"""Architectures and lookup tables that are wrong."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nas.space.macro_space import get_space
from tests.hostile.command import Command
from tests.support.tiny import full_depth_architecture

Content = dict[str, Any]

# Why a file is no JSON that is read, its content, and what must be said about it.
NO_JSON = {
    "empty": (b"", "not JSON"),
    "a NUL byte": (b"\0", "not JSON"),
    "not UTF-8": (b'{"space": "\xff"}', "not text in UTF-8"),
    "UTF-16": ('{"space": "micro"}'.encode("utf-16"), "not text in UTF-8"),
    "a comma too many": (b'{"space": "micro",}', "not JSON"),
    "a comment": (b'{"space": "micro"} // the smallest', "not JSON"),
    "two records": (b"{}{}", "not JSON"),
    "lists without end": (b"[" * 1_000_000, "recursion"),
    "records without end": (b'{"a":' * 300_000, "recursion"),
    "a number of 100,000 digits": (b'{"space": ' + b"1" * 100_000 + b"}", "digits"),
    "NaN": (b'{"space": NaN}', "space: nan"),
    "Infinity": (b'{"space": -Infinity}', "space: -inf"),
    "a key twice": (b'{"space": "micro", "space": "paper"}', "'space' is there twice"),
    "a key twice, after 200,000 others": (
        json.dumps(dict.fromkeys(map(str, range(200_000)))).encode()[:-1] + b', "199999": 0}',
        "'199999' is there twice",
    ),
    "a pickle": (b"\x80\x04cos\nmkdir\n(X\x08\x00\x00\x00attackedtR.", "not text in UTF-8"),
    "YAML with a tag": (b"!!python/object/apply:os.mkdir [attacked]", "not JSON"),
    "a list": (b"[1, 2]", "valid dictionary"),
    "text": (b'"micro"', "valid dictionary"),
    "null": (b"null", "valid dictionary"),
}


@pytest.mark.parametrize("arguments", [("describe",), ("latency", "range")], ids=" ".join)
@pytest.mark.parametrize("reason", NO_JSON)
def test_a_file_that_is_no_json_record_is_refused_in_one_line(
    reason: str, arguments: tuple[str, ...], command: Command
) -> None:
    content, expected = NO_JSON[reason]
    Path("file.json").write_bytes(content)
    line = command.refuses(*arguments, "file.json")
    assert line.startswith("tfnas: file.json: ")
    assert expected in line


# Why it is wrong, what is changed in a sound record, and what must be said about it.
ARCHITECTURES: dict[str, tuple[Callable[[Content], Any], str]] = {
    "no space": (lambda a: a.pop("space"), "space: missing"),
    "no stages": (lambda a: a.pop("stages"), "stages: missing"),
    "an unknown space": (lambda a: a.update(space="huge"), "no space 'huge'"),
    "a space that breaks the line": (lambda a: a.update(space="a\n\x1b[2Jb"), "no space 'a\\n\\x1b[2Jb'"),
    "a space that is no text": (lambda a: a.update(space=["micro"]), "space: ['micro']"),
    "half a surrogate pair": (lambda a: a.update(space="\ud800"), "space: "),
    "stages that are no list": (lambda a: a.update(stages={"0": []}), "stages: "),
    "a stage too few": (lambda a: a["stages"].pop(), "stages: 1"),
    "a million stages": (lambda a: a.update(stages=[[]] * 1_000_000), "stages: 1000000"),
    "a stage without its first layer": (lambda a: a["stages"][0].clear(), "stages[0]: 0 layers"),
    "a layer too many": (lambda a: a["stages"][0].append(a["stages"][0][0]), "stages[0]: 6 layers"),
    "a layer that is null": (lambda a: a["stages"][0].append(None), "stages[0][5]: None"),
    "an unknown operator": (lambda a: a["stages"][0][1].update(op="k9_e6"), "stages[0][1].op: 'k9_e6'"),
    "a width of zero": (lambda a: a["stages"][0][1].update(mid_channels=0), "stages[0][1].mid_channels: 0"),
    "a width below zero": (lambda a: a["stages"][0][1].update(mid_channels=-8), "mid_channels: -8"),
    "a width beyond its operator": (lambda a: a["stages"][0][1].update(mid_channels=10**9), "1000000000"),
    "a width of 4,000 digits": (lambda a: a["stages"][0][1].update(mid_channels=10**4000), "mid_channels"),
    "a width that is text": (lambda a: a["stages"][0][1].update(mid_channels="48"), "mid_channels: '48'"),
    "a width that is true": (lambda a: a["stages"][0][1].update(mid_channels=True), "mid_channels: True"),
    "half a channel": (lambda a: a["stages"][0][1].update(mid_channels=48.5), "mid_channels: 48.5"),
    "no width": (lambda a: a["stages"][0][1].pop("mid_channels"), "stages[0][1].mid_channels: missing"),
    "a field too many": (lambda a: a["stages"][0][1].update(kernel=3), "stages[0][1].kernel: unknown field"),
    "a name that is a number": (lambda a: a.update(name=1), "name: 1"),
    "a name that clears the screen": (lambda a: a.update(name="\x1b[2J"), "name: "),
    "a name of a million characters": (lambda a: a.update(name="a" * 1_000_000), "name: "),
}


@pytest.mark.parametrize("reason", ARCHITECTURES)
def test_an_architecture_that_is_wrong_is_refused_in_one_line(reason: str, command: Command) -> None:
    change, expected = ARCHITECTURES[reason]
    content = full_depth_architecture(get_space("micro")).model_dump(mode="json")
    change(content)
    Path("architecture.json").write_text(json.dumps(content))
    line = command.refuses("describe", "architecture.json")
    assert line.startswith("tfnas: architecture.json: ")
    assert expected in line


def _entry(table: Content, **fields: Any) -> None:
    table["entries"][0].update(fields)


# The same for lookup tables.
TABLES: dict[str, tuple[Callable[[Content], Any], str]] = {
    "seconds": (lambda t: t.update(unit="s"), "unit: 's': Input should be 'ms'"),
    "a schema from the future": (lambda t: t.update(schema_version=2), "schema_version: 2"),
    "a schema that never was": (lambda t: t.update(schema_version=0), "schema_version: 0"),
    "a schema that is text": (lambda t: t.update(schema_version="1"), "schema_version: '1'"),
    "a schema that is true": (lambda t: t.update(schema_version=True), "schema_version: True"),
    "a checksum of another content": (lambda t: t.update(checksum="0" * 64), "checksum"),
    "edited by hand": (lambda t: t.update(checksum=t["removed"], base_ms=0.5), "checksum"),
    "no space": (lambda t: t.pop("space"), "space: missing"),
    "an unknown space": (lambda t: t.update(space="huge"), "no space 'huge'"),
    "another space": (lambda t: t.update(space="paper"), "no entry for"),
    "no provenance": (lambda t: t.pop("provenance"), "provenance: missing"),
    "a provenance that is none": (lambda t: t["provenance"].update(source="guessed"), "provenance.source"),
    "a duration below zero": (lambda t: t["provenance"].update(duration_s=-1.0), "duration_s: -1"),
    "a field too many": (lambda t: t.update(ms=1.0), "ms: unknown field"),
    "a base below zero": (lambda t: t.update(base_ms=-1.0), "base_ms: -1.0"),
    "a base that is text": (lambda t: t.update(base_ms="2 ms"), "base_ms: '2 ms'"),
    "a base that is infinite": (lambda t: t.update(base_ms=float("inf")), "base_ms: inf"),
    "a base of many years": (lambda t: t.update(base_ms=1e300), "base_ms: 1e+300"),
    "a number too large for a float": (lambda t: _entry(t, latency_ms="1e400"), "latency_ms"),
    "no entries": (lambda t: t.update(entries=[]), "no entry for"),
    "entries that are no list": (lambda t: t.update(entries={"0": 1}), "entries: "),
    "an entry that is missing": (lambda t: t["entries"].pop(), "no entry for"),
    "an entry that is there twice": (lambda t: t["entries"].append(t["entries"][0]), "appears twice"),
    "an entry that is null": (lambda t: t["entries"].append(None), "entries["),
    "a latency below zero": (
        lambda t: t["entries"][0]["latency_ms"].__setitem__(0, -0.1),
        "-0.1 ms at width 1",
    ),
    "a latency that is NaN": (
        lambda t: t["entries"][0]["latency_ms"].__setitem__(0, float("nan")),
        "latency_ms[0]: nan",
    ),
    "a latency that is null": (lambda t: t["entries"][0]["latency_ms"].__setitem__(0, None), "latency_ms[0]"),
    "a latency that is text": (lambda t: t["entries"][0]["latency_ms"].__setitem__(0, "0"), "latency_ms[0]"),
    "a latency too few": (lambda t: t["entries"][0]["latency_ms"].pop(), "latency_ms; rebuild the table"),
    "a width too few": (
        lambda t: (t["entries"][0]["widths"].pop(), t["entries"][0]["latency_ms"].pop()),
        "lacks widths",
    ),
    "widths that fall": (lambda t: t["entries"][0]["widths"].reverse(), "must ascend"),
    "a width of zero": (lambda t: t["entries"][0]["widths"].__setitem__(0, 0), "widths[0]: 0"),
    "a width that takes all memory": (
        lambda t: t["entries"][0]["widths"].__setitem__(-1, 10**12),
        "1000000000000",
    ),
    "no widths": (lambda t: _entry(t, widths=[], latency_ms=[]), "widths: []"),
    "an unknown activation": (lambda t: t["entries"][0]["key"].update(activation="tanh"), "'tanh'"),
    "a key that lacks a field": (lambda t: t["entries"][0]["key"].pop("stride"), "key.stride: missing"),
    "a correction that turns time round": (
        lambda t: t.update(calibration=_correction(slope=-1.0)),
        "calibration.slope: -1.0",
    ),
    "a correction without measure": (
        lambda t: t.update(calibration=_correction(slope=1e300)),
        "calibration.slope: 1e+300",
    ),
    "a correction of no networks": (
        lambda t: t.update(calibration=_correction(num_networks=0)),
        "calibration.num_networks: 0",
    ),
}


def _correction(**fields: Any) -> Content:
    sound = {"slope": 1.0, "intercept_ms": 0.0, "num_networks": 30, "mape_percent": 1.0}
    return sound | {"half_width_percent": 2.0, "measured_on": "2026-01-01"} | fields


@pytest.mark.parametrize("reason", TABLES)
def test_a_lookup_table_that_is_wrong_is_refused_in_one_line(
    reason: str, command: Command, table_text: str
) -> None:
    change, expected = TABLES[reason]
    content = json.loads(table_text)
    checksum = content.pop("checksum")
    if reason == "edited by hand":
        content["removed"] = checksum
    change(content)
    content.pop("removed", None)
    Path("table.json").write_text(json.dumps(content))
    line = command.refuses("latency", "range", "table.json")
    assert line.startswith("tfnas: table.json: ")
    assert expected in line


@pytest.mark.parametrize(
    "arguments",
    [
        ("latency", "check"),
        ("latency", "import", "--space", "micro", "--out", "out.json"),
        ("describe", "tf-nas-a", "--latency"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_truncated_table_is_refused_wherever_a_table_is_read(
    share: float, arguments: tuple[str, ...], command: Command, table_text: str
) -> None:
    Path("cut.json").write_text(table_text[: int(share * len(table_text))])
    assert command.refuses(*arguments, "cut.json").startswith("tfnas: cut.json: not a latency table")


@pytest.mark.timeout(60)
def test_what_is_no_file_is_refused_and_not_waited_for(command: Command) -> None:
    os.mkfifo("pipe")
    os.symlink("loop", "loop")
    os.mkdir("folder")
    for path in (
        "pipe",
        "loop",
        "folder",
        "/dev/zero",
        "gone",
        "a" * 5000,
        "table.json/below",
        "a\n\x1b[2Jb",
    ):
        for arguments in (("describe",), ("latency", "range"), ("describe", "tf-nas-a", "--latency")):
            command.refuses(*arguments, path)


def test_names_are_shown_as_they_are_and_not_as_markup(
    command: Command, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from experiments.cli import main as cli

    content = full_depth_architecture(get_space("micro")).model_dump(mode="json") | {"name": "[/red] a"}
    Path("architecture.json").write_text(json.dumps(content))
    monkeypatch.setattr("sys.argv", ["tfnas", "describe", "architecture.json"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert not caught.value.code
    assert "[/red] a (space 'micro')" in capfd.readouterr().out
