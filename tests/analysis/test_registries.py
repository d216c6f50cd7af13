"""What plugins add to analysis, from registration to the report."""

import ast
import inspect
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from analysis.figures import FIGURES, make_drawings
from analysis.measures import MEASURES, measure_runs
from analysis.reading.experiment import Experiment
from analysis.reading.experiment_reader import read_experiment
from analysis.tables import TABLES, make_tables
from analysis.tables.ablation_table import ablation_table
from analysis.verdicts import CLAIMS, judge
from experiments.cli.results.figures_command import figures
from experiments.cli.results.report_command import report
from tests.support import toy_analysis
from tests.support.synthetic import Store, grid

REGISTRIES = (FIGURES, TABLES, MEASURES, CLAIMS)


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy plugin, registered for one test."""
    for registry in REGISTRIES:
        monkeypatch.setattr(registry, "_values", dict(registry._values))
    toy_analysis.register()


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = Store(tmp_path, "demo")
    base = {"target_latency_ms": 1.0, "num_epochs": 4, "num_warmup_epochs": 1}
    store.add_grid(base, grid(depth=["skip", "sink"], seed=[0, 1]))
    return store


def test_every_entry_can_be_found_by_its_name():
    for registry in (FIGURES, TABLES, MEASURES):
        for name, value in registry.items():
            assert callable(value) or value.name == name
    assert [measure.name for measure in MEASURES.values()] == list(MEASURES)


def test_tables_are_registered_under_the_names_of_their_files(experiment: Experiment):
    tables, _ = make_tables(experiment, measure_runs(experiment))
    assert tables
    assert all(table.name in TABLES for table in tables)


@pytest.mark.usefixtures("toys")
def test_what_a_plugin_registers_comes_last_in_figures_tables_measures_and_claims(small: Store):
    experiment = read_experiment("demo", small.tracking_uri)
    numbers = measure_runs(experiment)
    assert make_drawings(experiment)[0][-1].name == "width"
    assert make_tables(experiment, numbers)[0][-1].name == "width"
    assert ablation_table(experiment, numbers).columns[-1].name == "max_width"
    verdict = judge(experiment, numbers)[-1]
    assert (verdict.name, verdict.estimate.n) == ("x", 2)
    for run in experiment.runs:
        assert run.architecture is not None
        widths = [width for _, _, width in run.architecture.layers]
        assert numbers[run.run_id]["max_width"] == max(widths)


@pytest.mark.usefixtures("toys")
def test_both_commands_show_what_a_plugin_registers(small: Store):
    drawn = CliRunner().invoke(
        figures, ["demo", "--out", str(small.out_dir), "--json"], standalone_mode=False
    )
    assert str(small.out_dir / "figures" / "width.png") in json.loads(drawn.stdout)["written"]
    reported = CliRunner().invoke(report, ["demo", "--out", str(small.out_dir)])
    assert reported.exit_code == 0, reported.output
    assert "(x) Sink-connecting narrows the derived network." in reported.stdout
    page = (small.out_dir / "report.html").read_text()
    assert 'id="figure-width"' in page
    assert 'id="table-width"' in page
    assert 'id="claim-x"' in page
    assert (small.out_dir / "tables" / "width.csv").is_file()


def test_each_part_of_the_toy_plugin_takes_at_most_30_lines():
    tree = ast.parse(inspect.getsource(toy_analysis))
    sizes = [(node.end_lineno or 0) - node.lineno + 1 for node in tree.body]
    assert max(sizes) <= 30
