"""README shows what the bundles of the replication study hold."""

import html
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from analysis.measures import measure_runs
from analysis.verdicts import judge
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


BUNDLES = sorted(readme_results.BUNDLES.glob("*.bundle"))


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.stem)
def test_the_shipped_report_has_the_verdicts_of_its_bundle(bundle: Path) -> None:
    experiment = readme_results.open_bundle(bundle)
    page = html.unescape(bundle.with_suffix(".html").read_text("utf-8"))
    asked = [each for each in judge(experiment, measure_runs(experiment)) if each.status != "not asked"]
    assert asked
    for verdict in asked:
        assert verdict.reason in page, "run make figures"
        assert f"{verdict.estimate.mean:.3g}" in page, "run make figures"


@pytest.mark.slow
@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.stem)
def test_the_shipped_report_is_made_anew_from_its_bundle(bundle: Path, tmp_path: Path) -> None:
    subprocess.run(["tfnas", "report", "--from", bundle, "--out", tmp_path], check=True)
    assert (tmp_path / "report.html").read_bytes() == bundle.with_suffix(".html").read_bytes()


@pytest.mark.parametrize("page", readme_results.PAGES)
def test_a_table_takes_the_place_of_the_former_one(page: Path) -> None:
    text = page.read_text("utf-8")
    other = readme_results.with_table(text, "| other |")
    assert "| other |" in other
    assert "| claim |" not in other
    assert readme_results.with_table(other, readme_results.results_table()) == text
