"""README shows what the bundles of the replication study hold."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts import readme_results


def test_the_figures_of_the_readme_are_those_of_the_bundle(tmp_path: Path) -> None:
    readme_results.draw_figures(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(readme_results.FIGURES.values())
    for drawn in tmp_path.iterdir():
        shown = readme_results.ROOT / "docs" / "figures" / drawn.name
        assert np.array_equal(np.asarray(Image.open(drawn)), np.asarray(Image.open(shown))), (
            "run make figures"
        )


def test_the_results_of_the_readme_are_the_verdicts_of_the_bundles() -> None:
    table = readme_results.results_table()
    for page in readme_results.PAGES:
        text = page.read_text("utf-8")
        assert table in text, f"{page.name}: run make figures"
        assert readme_results.with_table(text, table) == text


@pytest.mark.parametrize("page", readme_results.PAGES)
def test_a_table_takes_the_place_of_the_former_one(page: Path) -> None:
    text = page.read_text("utf-8")
    other = readme_results.with_table(text, "| other |")
    assert "| other |" in other
    assert "| claim |" not in other
    assert readme_results.with_table(other, readme_results.results_table()) == text
