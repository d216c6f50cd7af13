"""Methods that have no alphas, and spaces with other operators than the paper's."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import rgb_to_hsv, to_rgb
from matplotlib.text import Text

from analysis.figures import make_drawings
from analysis.figures.collapse_figure import collapse_drawings
from analysis.figures.ink.drawing import Drawing
from analysis.figures.ink.style import op_style
from analysis.figures.learning_figure import learning_drawings
from analysis.figures.networks_figure import network_drawings
from analysis.measures import measure_runs
from analysis.measures.collapse import train_gini
from analysis.reading.experiment import Experiment
from analysis.reading.experiment_reader import read_experiment
from analysis.tables import make_tables
from nas.space.operators import OPERATORS, PAPER_OPERATORS, CandidateOp
from tests.support.hand_made import trajectory
from tests.support.synthetic import Store, grid, make_table

BASE = {"target_latency_ms": 1.0, "num_epochs": 4, "num_warmup_epochs": 1}
SUPERNET_MEASURES = ("locked_early_share", "final_alpha_entropy", "train_gini", "redundant_share")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """Two searches with a supernet, three without."""
    store = Store(tmp_path_factory.mktemp("mixed"), "mixed")
    store.add_grid(BASE, grid(seed=[0, 1]))
    store.add_grid(BASE, grid(seed=[0, 1, 2]), method="random")
    return read_experiment("mixed", store.tracking_uri)


@pytest.fixture(scope="module")
def random(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    store = Store(tmp_path_factory.mktemp("random"), "random")
    store.add_grid(BASE, grid(seed=[0, 1]), method="random")
    return read_experiment("random", store.tracking_uri)


def by_name(drawings: list[Drawing]) -> dict[str, Drawing]:
    return {drawing.name: drawing for drawing in drawings}


def test_a_method_without_supernet_lacks_nothing(random: Experiment):
    assert random.notices == ()
    for run in random.runs:
        assert run.trajectory is not None
        assert run.trajectory.alpha_ELO is None
        assert run.epochs is not None
        assert "train_loss" not in run.epochs


def test_figures_that_need_a_supernet_say_so_and_the_others_are_drawn(random: Experiment):
    drawings, undrawn = make_drawings(random)
    assert {"depth", "tradeoff", "space", "networks", "learning"} <= set(by_name(drawings))
    reasons = dict(line.split(": ", 1) for line in undrawn)
    assert "alpha_ELO" in reasons["operator collapse"]
    assert "redundant_E" in reasons["redundancy"]
    assert "method random" in reasons["redundancy"]
    for drawing in drawings:
        drawing.draw()


def test_measures_that_need_a_supernet_are_unknown_and_get_no_column(random: Experiment):
    numbers = measure_runs(random)
    for run in random.runs:
        known = {name for name, value in numbers[run.run_id].items() if np.isfinite(value)}
        assert not known & set(SUPERNET_MEASURES)
        assert {"derived_depth", "depth_fluctuation", "abs_latency_error_percent", "val_accuracy"} <= known
    ablation = make_tables(random, numbers)[0][0]
    assert not {column.name for column in ablation.columns} & set(SUPERNET_MEASURES)


def test_in_a_mixed_experiment_runs_without_alphas_are_left_out_with_a_reason(mixed: Experiment):
    assert mixed.factors == ("method",)
    drawings, undrawn = make_drawings(mixed)
    drawn = by_name(drawings)
    for name in ("collapse", "redundancy"):
        assert {run.config["method"] for run in drawn[name].runs} == {"tf_nas"}
        assert "Left out: 3 trials whose method has no" in drawn[name].caption
        assert "n = 2 trials" in drawn[name].caption
    for name in ("depth", "tradeoff", "networks", "learning"):
        assert {run.config["method"] for run in drawn[name].runs} == {"tf_nas", "random"}
    assert not [line for line in undrawn if not line.startswith("study")]
    for drawing in drawings:
        drawing.draw()


def test_learning_curves_show_a_training_loss_where_there_is_one(mixed: Experiment):
    (drawing,) = learning_drawings(mixed)
    figure = drawing.draw()
    accuracy, loss = figure.axes
    assert accuracy.get_legend_handles_labels()[1] == ["random", "tf_nas"]
    assert loss.get_legend_handles_labels()[1] == ["tf_nas"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["random, n = 3", "tf_nas, n = 2"]


@pytest.fixture
def few_operators(tmp_path: Path) -> Experiment:
    """Searches of the paper's space without squeeze-and-excitation: four operators and identity."""
    store = Store(tmp_path, "few", make_table("paper_no_se"))
    base = BASE | {"space": "paper_no_se", "target_latency_ms": 8.0, "augmentation": "none"}
    store.add_grid(base, grid(depth=["skip", "sink"], seed=[0]))
    return read_experiment("few", store.tracking_uri)


def test_figures_name_the_operators_of_the_space(few_operators: Experiment):
    own = {*PAPER_OPERATORS[:4], "skip"}
    (collapse,) = collapse_drawings(few_operators)
    legend = collapse.draw().legends[0].findobj(Text)
    named = {text.get_text().split(" (")[0] for text in legend} - {""}
    assert "skip" in named
    assert named <= own
    space, networks = network_drawings(few_operators)
    assert "4 candidate operators" in space.caption
    assert "identity as a further candidate" in space.caption
    legend = networks.draw().legends[0].findobj(Text)
    assert {text.get_text() for text in legend} - {""} <= own - {"skip"}
    for run in few_operators.runs:
        assert run.architecture is not None
        assert {choice.op for stage in run.architecture.stages for choice in stage} <= own


def test_training_counts_of_identity_are_no_operators_counts():
    counts = np.ones((1, 18, 5), np.int64)
    counts[..., 4] = 99
    course = trajectory(1, depth="skip", train_count_ELO=counts)
    assert train_gini(replace_space(course, "paper_no_se")) == 0


def replace_space(course, space: str):
    return type(course)(**vars(course) | {"space": space})


@pytest.fixture
def operators(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Operators of other kernels and expansions, registered for one test."""
    monkeypatch.setattr(OPERATORS, "_values", dict(OPERATORS._values))
    names = []
    for kernel, expansion, has_se in itertools.product((1, 3, 5, 7, 9), (1, 2, 3, 4, 6, 8), (False, True)):
        name = f"toy_k{kernel}_e{expansion}{'_se' if has_se else ''}"
        OPERATORS.register(name, CandidateOp(name, kernel, expansion, has_se))
        names.append(name)
    yield names
    op_style.cache_clear()


def test_every_operator_has_a_style_of_its_own(operators: list[str]):
    styles = [op_style(name) for name in operators]
    assert len(set(styles)) == len(operators)
    assert len({style.code for style in styles}) == len(operators)


def test_the_papers_operators_differ_in_hue_by_kernel_and_squeeze_and_excitation():
    hues = {name: rgb_to_hsv(to_rgb(op_style(name).color))[0] for name in PAPER_OPERATORS}
    for name in ("k3_e3", "k5_e3", "k3_e3_se", "k5_e3_se"):
        others = {hue for other, hue in hues.items() if other.replace("e6", "e3") != name}
        assert min(abs(hues[name] - hue) for hue in others) > 0.1
        assert abs(hues[name] - hues[name.replace("e3", "e6")]) < 0.08
