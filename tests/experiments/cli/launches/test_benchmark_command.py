"""`tfnas benchmark` on a small synthetic table."""

import csv
import json
import sys
from pathlib import Path

import pytest

from experiments.cli import main as cli
from tests.support.nas_bench_macro import synthetic_content, write_table

METHODS = ["random", "gp_nas_random", "gp_nas_mutual_information"]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("table") / "table.json", synthetic_content())


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["tfnas", "benchmark", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


def test_each_method_has_a_row(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, path, "--evaluations", "30", "--seeds", "2") == 0
    said = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in said.splitlines() if "│" in line]
    assert [row[0] for row in rows] == [*METHODS, "relaxation"]
    assert [row[1] == "-" for row in rows] == [True, False, False, True]
    assert "3,969 networks; 30 evaluations, 2 seeds" in said


def test_json_csv_and_figure_agree(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "folder"
    assert run(monkeypatch, path, "--evaluations", "30", "--seeds", "7", "--out", out, "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["num_networks"], content["num_evaluations"], content["num_seeds"]) == (3969, 30, 7)
    assert sorted(content["written"]) == sorted(map(str, out.iterdir()))
    rows = list(csv.DictReader((out / "benchmark.csv").open()))
    assert len(rows) == 3 * 7 * 30
    by_method = {row["method"]: row for row in content["methods"]}
    assert list(by_method) == [*METHODS, "relaxation"]
    for method in METHODS:
        last = [
            float(row["regret_points"])
            for row in rows
            if (row["method"], row["evaluation"]) == (method, "30")
        ]
        assert len(last) == 7
        assert sum(last) / 7 == pytest.approx(by_method[method]["regret_points"]["mean"], rel=1e-4)
    low, high = by_method["random"]["regret_points"]["interval"]
    assert low < by_method["random"]["regret_points"]["mean"] < high
    assert by_method["random"]["tau"] is None
    assert 0 < by_method["gp_nas_random"]["tau"]["mean"] < 1


@pytest.mark.parametrize(
    "options", [("--evaluations", "19"), ("--evaluations", "251"), ("--seeds", "0"), ("--fast",)]
)
def test_options_out_of_range_are_wrong_input(
    options: tuple[str, ...], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(monkeypatch, path, *options) == 2


def test_a_folder_that_cannot_be_made_is_wrong_input(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert run(monkeypatch, path, "--out", tmp_path / "file" / "folder") == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1
