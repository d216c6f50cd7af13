"""Experiments that lack something: the commands say what, and draw what can be drawn."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from experiments.cli.results.figures_command import figures
from experiments.cli.results.report_command import report
from tests.support.synthetic import Store, grid

BASE = {"target_latency_ms": 1.0, "num_epochs": 4, "num_warmup_epochs": 1}
NAMES = ["sampling", "depth", "seed"]


@pytest.fixture(autouse=True)
def _no_other_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def run_report(store: Store, name: str) -> Result:
    result = CliRunner().invoke(report, [name, "--out", str(store.out_dir)])
    assert result.exit_code == 0, result.output
    assert (store.out_dir / "report.html").is_file()
    return result


def drawn(store: Store) -> set[str]:
    return {path.stem for path in (store.out_dir / "figures").glob("*.png")}


def test_one_seed_is_drawn_and_decides_nothing(tmp_path: Path):
    store = Store(tmp_path, "one")
    store.add_grid(BASE, grid(depth=["skip", "sink"], seed=[0]))
    said = run_report(store, "one").output
    assert "SUPPORTED" not in said
    assert "n = 1" in said
    assert {"depth", "learning"} <= drawn(store)


def test_an_experiment_of_an_older_version_is_drawn_as_far_as_it_goes(tmp_path: Path):
    store = Store(tmp_path, "older")
    for sampling in ("single", "bi_random"):
        store.add(BASE | {"sampling": sampling, "depth": "sink", "seed": 0}, NAMES, older=True)
    said = run_report(store, "older").output
    assert "not drawn: no run with a trajectory" in said
    assert "derived_op_EL" in said
    assert "table 'health': not made: no run with a health record" in said
    assert 'id="health"' not in (tmp_path / "report.html").read_text()
    assert drawn(store)


@pytest.mark.parametrize(
    ("name", "message"),
    [("nothign", "'nothign': there is none; the nearest names: nothing"), ("nothing", "no finished")],
)
def test_where_there_is_nothing_to_draw_both_commands_say_why(name: str, message: str, tmp_path: Path):
    store = Store(tmp_path, "nothing")
    store.add(
        BASE | {"sampling": "bi_random", "depth": "sink", "seed": 0}, NAMES, status="FAILED", failure="killed"
    )
    for command in (figures, report):
        result = CliRunner().invoke(command, [name, "--out", str(tmp_path)])
        assert message in str(result.exception)
    assert not (tmp_path / "figures").exists()
    assert not (tmp_path / "report.html").exists()
