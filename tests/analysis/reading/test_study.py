"""A study read from its run in MLflow, its numbers against plain loops, its figures and its report."""

import csv
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Text
from scipy.stats import spearmanr

from analysis.figures import FIGURES, make_drawings
from analysis.figures.ink.figure_files import write_drawings
from analysis.figures.study_figure import study_drawings
from analysis.measures import measure_runs
from analysis.reading.experiment import Experiment
from analysis.reading.experiment_reader import read_experiment
from analysis.reading.nothing_to_draw import OutOfPlaceError
from analysis.reading.study_record import RecordedObjective, nondominated
from analysis.report.report_page import write_report
from analysis.tables import make_tables
from analysis.tables.best_points_table import best_points_table
from analysis.tables.table_files import to_csv
from analysis.verdicts import CLAIMS, NONE_OF_A_STUDY, judge
from analysis.verdicts.slices import Slice, slice_study
from experiments.cli.results.report_command import report
from nas.foundation.errors import UserError
from tests.support.synthetic import Store

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

RANDOM_ABOUT = ABOUT | {
    "name": "random",
    "sampler": "random",
    "seeds": [0],
    "space": {
        "weight_lr": {"choices": None, "log": True, "text": "0.01 to 0.2, log"},
        "arch_lr": {"choices": None, "log": False, "text": "0.001 to 0.1"},
    },
    "importances": [],
}
_rng = np.random.default_rng(0)
RANDOM_POINTS = [
    (
        number,
        "COMPLETE",
        0.3 + 2 * lr + _rng.normal(0, 0.01),
        _rng.uniform(0, 9),
        lr,
        _rng.uniform(0.001, 0.1),
    )
    for number, lr in enumerate(_rng.uniform(0.01, 0.2, 12))
]


def add_study(store: Store, about: dict, points: Sequence[tuple]) -> str:
    """Adds a study's run with its files, as a launch leaves it; returns its id."""
    folder = store.out_dir / "study"
    folder.mkdir(exist_ok=True)
    tags = {"tfnas.kind": "launch", "tfnas.study": about["name"]}
    run = store.client.create_run(store.experiment_id, tags=tags, run_name=f"study {about['name']}")
    (folder / "study.json").write_text(json.dumps(about))
    with (folder / "trials.csv").open("w", newline="") as file:
        metrics = [one["metric"] for one in about["objectives"]]
        csv.writer(file).writerow(["number", "state", *metrics, *about["space"], "failure"])
        csv.writer(file).writerows(points)
    store.client.log_artifacts(run.info.run_id, str(folder))
    return run.info.run_id


def add_search(store: Store, number: int, **fields: float) -> None:
    """Adds the search of a study's point."""
    run_id = store.add({"target_latency_ms": 1.0, "num_epochs": 4, "num_warmup_epochs": 1, **fields}, [])
    store.client.update_run(run_id, name=f"trial-{number}-s0")


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Experiment]:
    """A store with a study's run, as a launch leaves it, and searches beside it."""
    store = Store(tmp_path_factory.mktemp("study"), "studied")
    for rate in (0.01, 0.1, 0.05):
        store.add({"target_latency_ms": 1.0, "weight_lr": rate}, ["weight_lr"])
    add_study(store, ABOUT, POINTS)
    return store, read_experiment("studied", store.tracking_uri)


@pytest.fixture(scope="module")
def random_study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Experiment]:
    """A store with nothing but a study: twelve random points, and one whose search failed."""
    store = Store(tmp_path_factory.mktemp("random"), "random")
    failed = (len(RANDOM_POINTS), "FAIL", "", "", 0.2, 0.1, "it diverged")
    store.parent_id = add_study(store, RANDOM_ABOUT, [*RANDOM_POINTS, failed])
    for number, *_, weight_lr, arch_lr in RANDOM_POINTS:
        add_search(store, number, weight_lr=weight_lr, arch_lr=arch_lr)
    store.add(
        {"target_latency_ms": 1.0, "weight_lr": 0.2}, ["weight_lr"], status="FAILED", failure="it diverged"
    )
    return store, read_experiment("random", store.tracking_uri)


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
    rates, kinds, weights = slice_study(study)[0]
    assert rates.numbers_N.tolist() == [0, 1, 3, 4]
    assert rates.rho == pytest.approx(spearmanr([0.01, 0.1, 0.05, 0.02], [0.5, 0.6, 0.7, 0.4]).statistic)
    assert kinds.positions_N.tolist() == [0, 1, 0, 0]
    assert np.isnan([kinds.rho, kinds.p_value]).all()
    assert weights.numbers_N.tolist() == [0, 3, 4]


def assert_corrected_by_holm(slices: list[Slice], p_values: list[float]) -> None:
    """The smallest times the number of tests, the next times one fewer, and none below one before it."""
    ranked = sorted(zip(p_values, slices, strict=True), key=lambda pair: pair[0])
    so_far = 0.0
    for rank, (p_value, one) in enumerate(ranked):
        so_far = max(so_far, min(1, (len(ranked) - rank) * p_value))
        assert one.p_value == pytest.approx(so_far)


def test_the_p_of_a_slice_is_scipys_times_holms_factor_over_all_slices(random_study: Studied) -> None:
    study = random_study[1].study
    assert study is not None
    slices = [one for row in slice_study(study) for one in row]
    assert len(slices) == 4
    assert_corrected_by_holm(slices, [spearmanr(one.positions_N, one.values_N).pvalue for one in slices])
    assert slices[0].p_value < 0.001


def test_the_p_of_few_points_counts_all_their_orders(studied: Studied) -> None:
    study = studied[1].study
    assert study is not None
    slices = [one for row in slice_study(study) for one in row if np.isfinite(one.rho)]
    assert len(slices) == 4

    def count_orders(one: Slice) -> float:
        rhos = [spearmanr(order, one.values_N).statistic for order in itertools.permutations(one.positions_N)]
        return float(np.mean(np.abs(rhos) >= abs(one.rho) - 1e-9))

    assert_corrected_by_holm(slices, [count_orders(one) for one in slices])


def test_three_points_in_line_are_no_evidence(studied: Studied) -> None:
    study = studied[1].study
    assert study is not None
    points = study.points.iloc[:4].assign(val_accuracy=[0.1, 0.3, np.nan, 0.2])
    rates, _, _ = slice_study(replace(study, points=points, objectives=study.objectives[:1]))[0]
    assert rates.rho == pytest.approx(1)
    assert rates.p_value == pytest.approx(1 / 3)


@given(
    values=st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=12),
    better=st.tuples(*[st.booleans()] * 3),
)
def test_nondominated_points_agree_with_the_definition(
    values: list[tuple[int, int, int]], better: tuple[bool, bool, bool]
) -> None:
    objectives = [RecordedObjective(str(index), is_maximized) for index, is_maximized in enumerate(better)]

    def beats(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
        gains = [(a - b) * (1 if up else -1) for a, b, up in zip(one, other, better, strict=True)]
        return min(gains) >= 0 and max(gains) > 0

    expected = [i for i, own in enumerate(values) if not any(beats(other, own) for other in values)]
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
    with pytest.raises(OutOfPlaceError):
        study_drawings(replace(studied[1], study=None))


def test_bold_are_the_correlations_that_are_significant(random_study: Studied) -> None:
    study = random_study[1].study
    assert study is not None
    drawing = next(one for one in study_drawings(random_study[1]) if one.name == "study-slices")
    assert "corrected by Holm's method for 4 panels" in drawing.caption
    panels = drawing.draw().axes
    slices = [one for row in slice_study(study) for one in row]
    titles = [text for axes in panels for text in axes.findobj(Text) if text.get_text().startswith("ρ")]
    assert titles[0].get_text().endswith("p < 0.001")
    assert [title.get_fontweight() == "bold" for title in titles] == [one.p_value < 0.05 for one in slices]
    assert sum(one.p_value < 0.05 for one in slices) == 1


@pytest.mark.parametrize(
    ("low", "high"), [(0.0031, 0.0094), (0.05, 0.06), (0.003, 0.09), (0.02, 0.9), (0.01, 1), (1e-6, 1)]
)
def test_a_log_axis_has_a_few_numbers_whatever_it_spans(
    random_study: Studied, low: float, high: float
) -> None:
    study = random_study[1].study
    assert study is not None
    points = study.points.assign(weight_lr=np.geomspace(low, high, len(study.points)))
    slices = study_drawings(replace(random_study[1], study=replace(study, points=points)))[0]
    figure = slices.draw()
    figure.draw_without_rendering()
    left, right = figure.axes[0].get_xlim()
    ticks = [tick for tick in figure.axes[0].get_xticks() if left <= tick <= right]
    assert 2 <= len(ticks) <= 5


def test_a_field_that_no_complete_point_has_is_an_empty_panel(studied: Studied) -> None:
    study = studied[1].study
    assert study is not None
    empty = replace(study, points=study.points.assign(weight_lr=np.nan, latency_weight=np.nan))
    figure = study_drawings(replace(studied[1], study=empty))[0].draw()
    figure.draw_without_rendering()
    assert len(figure.axes) == 6


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
    assert 'id="grid"' in text
    assert text.index('id="study"') < text.index('id="figure-study-front"') < text.index('id="claims"')
    assert [row[0] for row in table.rows] == [1, 3]
    assert to_csv(table).splitlines()[1] == "1,0.6,2.0,0.1,fbnet,"


def test_a_study_beside_a_grid_takes_nothing_from_the_grid(studied: Studied) -> None:
    experiment = studied[1]
    assert not experiment.is_study
    numbers = measure_runs(experiment)
    assert len(judge(experiment, numbers)) == len(CLAIMS)
    drawings, undrawn = make_drawings(experiment)
    assert {"learning", "study-slices"} <= {drawing.name for drawing in drawings}
    assert len(undrawn) < len(FIGURES)
    tables, unmade = make_tables(experiment, numbers)
    assert [table.name for table in tables] == ["ablation", "health", "study-best"]
    assert [line.split(":")[0] for line in unmade] == [
        "table 'targets'",
        "table 'trained'",
        "table 'published'",
    ]


def test_of_a_study_alone_the_report_has_nothing_that_only_a_grid_can_have(
    random_study: Studied, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store, experiment = random_study
    assert experiment.is_study
    assert len(experiment.study_runs) == len(RANDOM_POINTS)
    said = CliRunner().invoke(report, ["random", "--out", str(store.out_dir)])
    assert said.exit_code == 0, said.output
    assert said.stdout.splitlines() == [NONE_OF_A_STUDY, str(store.out_dir / "report.html")]
    assert re.fullmatch(r"missing: 0\.2 \(\w+\): failed: it diverged\n", said.stderr)
    assert {path.stem for path in (store.out_dir / "figures").iterdir()} == {"study-slices", "study-front"}
    assert {path.stem for path in (store.out_dir / "tables").iterdir()} == {"study-best"}

    text = (store.out_dir / "report.html").read_text()
    headings = re.findall("<h[23].*?>(.*?)</h", text)
    assert headings == [
        "The study",
        "Notices",
        "Claims",
        "Health of the searches",
        "Tables",
        "Best points of the study",
        "Trials and derived networks",
        "Derived networks",
        "Config and provenance",
        "Config fields that all trials share",
    ]
    assert NONE_OF_A_STUDY in text
    assert "failed: it diverged" in text
    assert set(re.findall('href="#([^"]*)"', text)) <= set(re.findall(' id="([^"]*)"', text))
    assert all(run.run_id in text for run in experiment.cells)

    said = CliRunner().invoke(report, ["random", "--out", str(store.out_dir), "--json"])
    assert json.loads(said.stdout)["claims"] == []


@pytest.mark.parametrize(
    ("names", "is_study"), [(("trial-0-s0", "trial-1-s0"), True), (("trial-0-s0", "bi_random-s0"), False)]
)
def test_searches_sent_again_to_a_new_store_belong_to_the_study_by_their_names(
    names: tuple[str, str], is_study: bool, tmp_path: Path
) -> None:
    store = Store(tmp_path, "random")
    store.parent_id = "a run of the store that is gone"
    for number, name in enumerate(names):
        run_id = store.add({"target_latency_ms": 1.0, "num_epochs": 4, "seed": number}, [])
        store.client.update_run(run_id, name=name)
    add_study(store, RANDOM_ABOUT, RANDOM_POINTS[:2])
    assert read_experiment("random", store.tracking_uri).is_study == is_study


def test_searches_of_another_study_in_the_experiment_are_not_of_this_one(tmp_path: Path) -> None:
    store = Store(tmp_path, "random")
    for number in range(2):
        store.parent_id = add_study(store, RANDOM_ABOUT, RANDOM_POINTS[:1])
        add_search(store, 0, seed=number)
    experiment = read_experiment("random", store.tracking_uri)
    assert not experiment.is_study
    assert [run.seed for run in experiment.study_runs] == [1]
    assert [run.seed for run in best_points_table(experiment, {}).runs] == [1]


def test_a_damaged_record_of_a_study_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path, "random")
    store.parent_id = add_study(store, RANDOM_ABOUT, RANDOM_POINTS[:1])
    damaged = tmp_path / "study.json"
    damaged.write_text("{")
    store.client.log_artifact(store.parent_id, str(damaged))
    add_search(store, 0)
    with pytest.raises(UserError, match=r"study\.json or trials\.csv is damaged"):
        read_experiment("random", store.tracking_uri)
