"""`tfnas health`: exit code 1 where a search is not healthy."""

import json
import sys
from pathlib import Path

import pytest

from experiments.cli import main as cli
from tests.support.synthetic import Store, grid

BASE = {"target_latency_ms": 1.0, "num_epochs": 4, "num_warmup_epochs": 1}
NAMES = ["sampling", "seed"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Searches on one path and on two; those on one do not move their alphas, see `Search.health`."""
    store = Store(tmp_path_factory.mktemp("launch"), "both")
    store.add_grid(BASE, grid(sampling=["single", "bi_random"], seed=[0, 1]))
    # Of another cell, since they are of another version.
    store.add(BASE | {"sampling": "single", "seed": 2}, NAMES, older=True)
    return store


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(sys, "argv", ["tfnas", "health", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


def test_each_search_has_a_row_and_each_failed_check_a_line_with_its_remedy(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "both", "--out", store.out_dir) == 1
    said = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in said.splitlines() if "│" in line]
    assert rows == [
        ["single-s0", "✗", "ok"],
        ["single-s1", "✗", "ok"],
        ["bi_random-s0", "ok", "ok"],
        ["bi_random-s1", "ok", "ok"],
    ]
    assert "2 of 4 searches are healthy" in said
    assert "alphas: 2 searches, for example single-s0: alphas moved <a bit>; raise arch_lr" in said
    assert "older" not in said


def test_json_has_the_checks_of_each_search(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "both", "--out", store.out_dir, "--json") == 1
    content = json.loads(capsys.readouterr().out)
    assert {search["name"]: search["is_healthy"] for search in content["searches"]} == {
        "single-s0": False,
        "single-s1": False,
        "bi_random-s0": True,
        "bi_random-s1": True,
    }
    assert [check["name"] for check in content["searches"][0]["checks"]] == ["latency", "alphas"]
    (failed,) = content["failed"]
    assert (failed["name"], failed["num_searches"], failed["remedy"]) == ("alphas", 2, "raise arch_lr")


def test_the_exit_code_is_zero_where_all_are_healthy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path, "sound")
    store.add_grid(BASE, grid(sampling=["bi_random"], seed=[0, 1]))
    assert run(monkeypatch, "sound", "--out", store.out_dir) == 0
    said = capsys.readouterr().out
    assert "2 of 2 searches are healthy" in said
    assert "✗" not in said


def test_searches_without_a_record_are_counted_and_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path, "former")
    store.add_grid(BASE, grid(sampling=["bi_random"], seed=[0, 1, 2]))
    for path in list((tmp_path / "mlartifacts").glob("*/**/health.json"))[:2]:
        path.unlink()
    assert run(monkeypatch, "former", "--out", store.out_dir) == 0
    said = capsys.readouterr().out
    assert "1 of 1 searches are healthy" in said
    assert "2 searches are older than health checks" in said
    for path in (tmp_path / "mlartifacts").glob("*/**/health.json"):
        path.unlink()
    assert run(monkeypatch, "former", "--out", store.out_dir, "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert [search["is_healthy"] for search in content["searches"]] == [None] * 3
    assert content["failed"] == []


def test_an_experiment_that_is_not_there_is_wrong_input(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(monkeypatch, "neither", "--out", store.out_dir) == 2
