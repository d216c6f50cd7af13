import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from analysis.runs import Experiment
from experiments.commands.figures import figures


@pytest.fixture(scope="module")
def drawn(store, tmp_path_factory) -> tuple[Path, dict]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        result = CliRunner().invoke(figures, ["demo", "--out", str(store.out_dir), "--json"])
    assert result.exit_code == 0, result.output
    return store.out_dir / "figures", json.loads(result.stdout)


def test_the_two_main_figures_are_drawn_in_three_formats(drawn: tuple[Path, dict]):
    folder, report = drawn
    for name in ("collapse", "depth"):
        for suffix in ("png", "pdf", "svg"):
            assert str(folder / f"{name}.{suffix}") in report["written"]
            assert (folder / f"{name}.{suffix}").stat().st_size > 5000


def test_the_missing_cells_are_reported(drawn: tuple[Path, dict]):
    assert any("bi-skip-s3" in notice for notice in drawn[1]["notices"])


def test_each_figure_names_its_runs_beside_and_within_it(drawn: tuple[Path, dict], experiment: Experiment):
    folder, _ = drawn
    stamp = json.loads((folder / "depth.json").read_text())
    assert {run["run_id"] for run in stamp["runs"]} == {run.run_id for run in experiment.runs}
    assert stamp["table_fingerprint"] == experiment.provenance.table_fingerprint
    assert "n = 12 trials" in stamp["caption"]
    with Image.open(folder / "depth.png") as image:
        assert experiment.runs[0].run_id in image.info["Source"]
    assert experiment.runs[0].run_id in (folder / "depth.svg").read_text()


def test_figures_are_as_wide_as_a_page(drawn: tuple[Path, dict]):
    with Image.open(drawn[0] / "collapse.png") as image:
        assert image.width == pytest.approx(7.1 * 300, abs=2)
        assert image.height < 11 * 300
