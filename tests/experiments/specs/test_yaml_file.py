from pathlib import Path
from typing import Any

import pytest

from experiments.specs.yaml_file import parse_yaml, read_yaml_file
from nas.foundation.errors import UserError


def read_yaml(path: Path) -> dict[str, Any]:
    return parse_yaml(read_yaml_file(path), path)


def test_a_mapping_is_read_as_written(tmp_path: Path) -> None:
    path = tmp_path / "good.yaml"
    path.write_text("a: 1\nb: [x, 2.5, true, null]\nc: {d: text}\n")
    assert read_yaml(path) == {"a": 1, "b": ["x", 2.5, True, None], "c": {"d": "text"}}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_files_of_other_editors_are_read_as_any(tmp_path: Path, encoding: str, line_end: str) -> None:
    path = tmp_path / "good.yaml"
    path.write_bytes(line_end.join(["a: 1", "b: café", "c: [0, -0, 0.5, 10]", ""]).encode(encoding))
    assert read_yaml(path) == {"a": 1, "b": "café", "c": [0, 0, 0.5, 10]}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: 'a' is there twice"),
        ("a: {b: 1, b: 2}\n", "line 1: 'b' is there twice"),
        ("a: !!python/object/apply:os.system ['echo hi']\n", "tags"),
        ("!!python/name:os.system\n", "tags"),
        ("a: !custom 1\n", "tags"),
        ("a: &x [1]\nb: *x\n", "line 2: aliases are not supported"),
        ("a: 1:30\n", "numbers in base 60"),
        ("a: [1, 010]\n", "line 1: YAML reads a number that begins with 0 in base 8"),
        ("1: a\n", "key 1 is not text"),
        ("on: a\n", "key True is not text"),
        ("[a]: b\n", "is not text"),
        ("- a\n- b\n", "must be a mapping"),
        ("", "must be a mapping"),
        ("just text", "must be a mapping"),
        ("a: [1, 2\n", "line"),
        ("a: 'open\n", "line"),
        ("a:\n\t- b\n", "line"),
        ("a: 2026-13-45\n", "not valid YAML"),
        ("a: 1\n---\nb: 2\n", "line"),
        ("a: \x07\n", "YAML"),
        ("[" * 20_000, "nested too deeply"),
    ],
)
def test_anything_else_is_refused_in_one_line(tmp_path: Path, content: str, expected: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    with pytest.raises(UserError) as caught:
        read_yaml(path)
    assert expected in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "large.yaml").write_bytes(b"#" * 2_000_000)
    for path, expected in (
        (tmp_path / "binary.yaml", "UTF-8"),
        (tmp_path / "large.yaml", "larger than"),
        (tmp_path / "missing.yaml", "No such file"),
        (tmp_path, "Is a directory"),
    ):
        with pytest.raises(UserError, match=expected):
            read_yaml(path)
