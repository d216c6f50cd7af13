"""A study read from its run in MLflow, its numbers against plain loops, and its figures."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.tracking import MlflowClient
from scipy.stats import spearmanr
from synthetic import Store

from analysis.experiment import Experiment
from analysis.figures.study import study_drawings
from analysis.measures import measure_runs
from analysis.provenance import write_drawings
from analysis.report import write_report
from analysis.runs import read_experiment
from analysis.study import Objective, nondominated, slice_study
from analysis.table_files import to_csv
from analysis.tables import best_points_table

FIELDS = ("weight_lr", "objective", "latency_weight")
POINTS = [
    (0, "COMPLETE", 0.5, 4.0, 0.01, "tfnas", 0.1, ""),
    (1, "COMPLETE", 0.6, 2.0, 0.1, "fbnet", "", ""),
    (2, "FAIL", "", "", 0.2, "tfnas", 0.9, "it diverged"),
    (3, "COMPLETE", 0.7, 3.0, 0.05, "tfnas", 0.5, ""),
    (4, "COMPLETE", 0.4, 9.0, 0.02, "tfnas", 0.3, ""),
    (5, "PRUNED", "", "", 0.03, "None", "", ""),
]
ABOUT = {
    "name": "studied",
    "sampler": "tpe",
    "sampler_seed": 0,
    "pruning": "none",
    "budget": {"num_trials": 6, "hours": None},
    "seeds": [0, 1],
    "objectives": [
        {"metric": "val_accuracy", "direction": "maximize"},
        {"metric": "abs_latency_error_percent", "direction": "minimize"},
    ],
    "space": {
        "weight_lr": {"choices": None, "log": True, "text": "0.01 to 0.2, log"},
        "objective": {"choices": ["tfnas", "fbnet", None], "log": False, "text": "tfnas, fbnet, None"},
        "latency_weight": {"choices": None, "log": False, "text": "0 to 1"},
    },
    "importances": [
        {"field": "weight_lr", "metric": "val_accuracy", "share": 0.9, "chance": 0.7, "num_trials": 4},
        {"field": "objective", "metric": "val_accuracy", "share": 0.1, "chance": 0.4, "num_trials": 4},
    ],
}


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Experiment]:
    """A store with a study's run, as a launch leaves it, and searches beside it."""
    store = Store(tmp_path_factory.mktemp("study"), "studied")
    for rate in (0.01, 0.1, 0.05):
        store.add({"target_latency_ms": 1.0, "weight_lr": rate}, ["weight_lr"])
    client = MlflowClient(store.tracking_uri)
    experiment_id = client.get_experiment_by_name("studied").experiment_id
    tags = {"tfnas.kind": "launch", "tfnas.study": "studied"}
    run = client.create_run(experiment_id, tags=tags, run_name="study studied")
    folder = tmp_path_factory.mktemp("files")
    (folder / "study.json").write_text(json.dumps(ABOUT))
    with (folder / "trials.csv").open("w", newline="") as file:
        names = ("val_accuracy", "abs_latency_error_percent")
        csv.writer(file).writerows([("number", "state", *names, *FIELDS, "failure"), *POINTS])
    client.log_artifacts(run.info.run_id, str(folder))
    return store, read_experiment("studied", store.tracking_uri)


Studied = tuple[Store, Experiment]


def test_a_study_is_read_back_with_its_types_and_gaps(studied: Studied) -> None:
    study = studied[1].study
    assert study is not None
    assert [one.metric for one in study.objectives] == ["val_accuracy", "abs_latency_error_percent"]
    assert (study.count("COMPLETE"), study.count("PRUNED"), study.count("FAIL")) == (4, 1, 1)
    assert study.points["objective"].tolist() == ["tfnas", "fbnet", "tfnas", "tfnas", "tfnas", "None"]
    assert np.isnan(study.points["latency_weight"][1])
    assert study.fields[1].choices == ("tfnas", "fbnet", "None")
    assert study.importances[0].is_above_chance
    assert not study.importances[1].is_above_chance


def test_the_best_of_several_objectives_are_the_pareto_front(studied: Studied) -> None:
    study = studied[1].study
    assert study is not None
    assert study.best()["number"].tolist() == [1, 3]


def test_a_slice_has_the_complete_points_that_have_the_field(studied: Studied) -> None:
    study = studied[1].study
    assert study is not None
    accuracy = study.objectives[0]
    rates, kinds, weights = (slice_study(study, accuracy, field) for field in study.fields)
    assert rates.numbers_N.tolist() == [0, 1, 3, 4]
    assert rates.rho == pytest.approx(spearmanr([0.01, 0.1, 0.05, 0.02], [0.5, 0.6, 0.7, 0.4]).statistic)
    assert kinds.positions_N.tolist() == [0, 1, 0, 0]
    assert np.isnan(kinds.rho)
    assert weights.numbers_N.tolist() == [0, 3, 4]


@given(
    values=st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=12),
    better=st.tuples(*[st.booleans()] * 3),
)
def test_nondominated_points_agree_with_the_definition(
    values: list[tuple[int, int, int]], better: tuple[bool, bool, bool]
) -> None:
    objectives = [Objective(str(index), is_maximized) for index, is_maximized in enumerate(better)]

    def betters(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
        gains = [(a - b) * (1 if up else -1) for a, b, up in zip(one, other, better, strict=True)]
        return min(gains) >= 0 and max(gains) > 0

    expected = [i for i, own in enumerate(values) if not any(betters(other, own) for other in values)]
    found = nondominated(np.array(values, np.float64), objectives)
    assert sorted(found.tolist()) == expected


def test_a_study_has_three_figures_and_a_grid_has_none(studied: Studied) -> None:
    drawings = study_drawings(studied[1])
    assert {drawing.name for drawing in drawings} == {"study-slices", "study-importance", "study-front"}
    for drawing in drawings:
        assert (
            len(drawing.draw().axes)
            == {"study-slices": 6, "study-importance": 1, "study-front": 1}[drawing.name]
        )
        assert "n = 4 points" in drawing.caption
    assert study_drawings(replace(studied[1], study=None)) == []


def test_the_report_has_a_section_on_the_study(studied: Studied, tmp_path: Path) -> None:
    experiment = studied[1]
    numbers = measure_runs(experiment)
    drawings = study_drawings(experiment)
    write_drawings(drawings, experiment, tmp_path)
    table = best_points_table(experiment, numbers)
    page = tmp_path / "report.html"
    write_report(experiment, numbers, [], drawings, [table], [], tmp_path, page)
    text = page.read_text()
    assert "4 complete, 1 pruned, 1 failed" in text
    assert text.index('id="study"') < text.index('id="figure-study-front"') < text.index('id="claims"')
    assert [row[0] for row in table.rows] == [1, 3]
    assert to_csv(table).splitlines()[1] == "1,0.6,2.0,0.1,fbnet,"
