import re
from pathlib import Path

import pytest

from tests.support.synthetic import Store

PAGE = Path(__file__).parents[2] / "docs" / "api" / "analysis.md"


def test_the_example_of_the_reference_draws_judges_and_makes_tables(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.tracking_uri)
    monkeypatch.chdir(tmp_path)
    example = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)[0]
    made: dict[str, list[object]] = {}
    exec(example.replace('"smoke"', '"demo"'), made)
    assert made["verdicts"]
    assert made["tables"]
    assert len(list((tmp_path / "results" / "smoke" / "figures").glob("*.svg"))) == len(made["drawings"]) > 0
