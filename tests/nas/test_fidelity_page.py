"""docs/fidelity.md claims no equality with the paper that no test holds."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEST_FILE = re.compile(r"`(test_\w+\.py)`")


def rows() -> list[list[str]]:
    """The cells of all rows that compare: point, reference, here, held by."""
    lines = (ROOT / "docs" / "fidelity.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return [row for row in cells if len(row) == 4 and row[-1] != "held by"]


def test_every_row_that_says_the_same_names_a_test_that_exists() -> None:
    same = [row for row in rows() if "the same" in row[2].lower()]
    assert len(same) > 15
    names = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    for point, _, _, held_by in same:
        held_by_tests = set(TEST_FILE.findall(held_by))
        assert held_by_tests or "`tests/" in held_by, point
        assert held_by_tests <= names, point


def test_every_file_that_the_page_names_exists() -> None:
    page = (ROOT / "docs" / "fidelity.md").read_text(encoding="utf-8")
    names = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    assert set(TEST_FILE.findall(page)) <= names
    for path in re.findall(r"`((?:tests|tune_configs)/[\w./]+)`", page):
        assert (ROOT / path).exists(), path
