"""The health checks of a search in its folder: written, read back, refused if they are something else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.cells.cell_folder import CellFolder
from nas.foundation.errors import UserError
from nas.search.health import HealthCheck, checks_from_json

CHECKS = [
    HealthCheck("alphas", True, "alphas moved by 0.5 on average", ""),
    HealthCheck("latency", False, "the derived latency is 5.0 % above its target", "raise latency_weight"),
]


@pytest.fixture
def folder(tmp_path: Path) -> CellFolder:
    folder = CellFolder(tmp_path)
    folder.artifacts.mkdir()
    return folder


def test_checks_are_an_artifact_in_plain_json_and_read_back_the_same(folder: CellFolder) -> None:
    folder.write_health(CHECKS)
    assert json.loads((folder.artifacts / "health.json").read_text()) == [
        {
            "name": "alphas",
            "is_healthy": True,
            "finding": "alphas moved by 0.5 on average",
            "remedy": "",
        },
        {
            "name": "latency",
            "is_healthy": False,
            "finding": "the derived latency is 5.0 % above its target",
            "remedy": "raise latency_weight",
        },
    ]
    assert folder.health == CHECKS


def test_a_folder_without_the_file_has_no_checks(folder: CellFolder) -> None:
    assert folder.health == []


@pytest.mark.parametrize("content", [b"", b"[{", b"\xff", b"[" * 100_000, b'[{"name": "a", "name": "b"}]'])
def test_a_file_that_is_no_json_is_refused_in_one_line(content: bytes, folder: CellFolder) -> None:
    path = folder.artifacts / "health.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        folder.health  # noqa: B018
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).isprintable()


# Why it is wrong, and what is changed in sound checks.
WRONG: dict[str, Callable[[list[dict[str, Any]]], Any]] = {
    "no list": lambda checks: checks[0],
    "null": lambda checks: None,
    "no check": lambda checks: [],
    "a million checks": lambda checks: checks * 500_000,
    "a check twice": lambda checks: [checks[0], checks[0]],
    "a check that is text": lambda checks: [*checks, "alphas"],
    "a field too few": lambda checks: [{key: checks[0][key] for key in ("name", "is_healthy", "finding")}],
    "a field too many": lambda checks: [checks[0] | {"command": "rm"}],
    "a number for a flag": lambda checks: [checks[0] | {"is_healthy": 1}],
    "text for a flag": lambda checks: [checks[0] | {"is_healthy": "false"}],
    "a finding that is null": lambda checks: [checks[0] | {"finding": None}],
    "a remedy that is a list": lambda checks: [checks[0] | {"remedy": ["a"]}],
    "a name that is a path": lambda checks: [checks[0] | {"name": "../alphas"}],
    "a name without letters": lambda checks: [checks[0] | {"name": ""}],
    "a finding that clears the screen": lambda checks: [checks[0] | {"finding": "\x1b[2J"}],
    "a remedy of two lines": lambda checks: [checks[0] | {"remedy": "one\ntwo"}],
    "a remedy of a million characters": lambda checks: [checks[0] | {"remedy": "a" * 1_000_000}],
}


@pytest.mark.parametrize("reason", WRONG)
def test_content_that_is_something_else_is_refused_in_one_line(reason: str, folder: CellFolder) -> None:
    folder.write_health(CHECKS)
    content = WRONG[reason](json.loads((folder.artifacts / "health.json").read_text()))
    with pytest.raises(UserError, match=r"^here: not the health checks of a search") as caught:
        checks_from_json(content, "here")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 250
