"""One style for each setting, whatever the experiment; and names in one order."""

import itertools

import pytest

from analysis.figures import make_drawings
from analysis.figures.ink.setting_styles import KNOWN_STYLES, assign_styles, pick_styles, setting_styles
from analysis.figures.ink.style import LINE_STYLES, fit_lines
from analysis.reading.run import sort_runs
from analysis.reading.values import order_fields
from nas.search.methods import METHODS
from nas.supernet.objectives import OBJECTIVES
from nas.supernet.sampling import SAMPLINGS
from tests.support.hand_made import experiment_of, run


def test_every_value_that_ships_has_a_style_of_its_own():
    assert set(KNOWN_STYLES["method"]) == set(METHODS)
    assert set(KNOWN_STYLES["sampling"]) == set(SAMPLINGS)
    assert set(KNOWN_STYLES["objective"]) == set(OBJECTIVES)
    for styles in KNOWN_STYLES.values():
        assert len({style.color for style in styles.values()}) == len(styles)
        assert len({style.marker for style in styles.values()}) == len(styles)


def test_sink_looks_the_same_alone_beside_skip_and_in_any_order():
    for settings in ([("sink",)], [("skip",), ("sink",)], [("sink",), ("skip",)]):
        assert assign_styles(("depth",), settings)["sink",] == KNOWN_STYLES["depth"]["sink"]


def test_depth_gives_the_color_and_sampling_the_marker_where_both_differ():
    settings = list(itertools.product(("single", "bi_random", "bi_gumbel"), ("skip", "sink")))
    styles = assign_styles(("sampling", "depth"), settings)
    for (sampling, depth), style in styles.items():
        assert style.color == KNOWN_STYLES["depth"][depth].color
        assert style.marker == KNOWN_STYLES["sampling"][sampling].marker
        assert style.dashes == KNOWN_STYLES["sampling"][sampling].dashes


def test_methods_without_these_fields_keep_their_color_beside_settings_of_tf_nas():
    settings = [("tf_nas", "sink"), ("tf_nas", "skip"), ("random", "sink"), ("gp_nas", "sink")]
    styles = assign_styles(("method", "depth"), settings)
    assert styles["tf_nas", "skip"].color == KNOWN_STYLES["depth"]["skip"].color
    assert styles["random", "sink"].color == KNOWN_STYLES["method"]["random"].color
    assert len({style.color for style in styles.values()}) == 4


@pytest.mark.parametrize("fields", [("latency_weight",), ("depth", "latency_weight")])
def test_other_values_keep_their_style_if_more_of_them_come_and_no_two_share_one(fields: tuple[str, ...]):
    few = [("sink", weight)[-len(fields) :] for weight in (0.01, 0.1)]
    many = [("sink", weight)[-len(fields) :] for weight in (0.01, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)]
    styles = assign_styles(fields, many)
    assert len(set(styles.values())) == len(many)
    assert assign_styles(fields, few)[few[0]] == styles[few[0]]
    assert all(style.color == KNOWN_STYLES["depth"]["sink"].color for style in styles.values()) == (
        "depth" in fields
    )


def test_picked_styles_are_not_those_that_are_taken():
    taken = LINE_STYLES[:5]
    styles = pick_styles(["a", "b", "c"], taken)
    assert len({*styles.values(), *taken}) == 8


def test_styles_of_an_experiment_are_those_of_the_fields_that_vary():
    runs = [run(f"{depth}", depth=depth, sampling="single", seed=0) for depth in ("skip", "sink")]
    fields, styles = setting_styles(experiment_of(runs), ("sampling", "depth"))
    assert fields == ("depth",)
    assert styles == {(value,): KNOWN_STYLES["depth"][value] for value in ("skip", "sink")}
    fields, styles = setting_styles(experiment_of(runs[:1]), ("sampling", "depth"))
    assert styles == {("single",): KNOWN_STYLES["sampling"]["single"]}


def test_settings_are_named_in_one_order():
    fields = ["num_epochs", "target_latency_ms", "depth", "batch_size", "sampling", "method"]
    expected = ("method", "sampling", "depth", "target_latency_ms", "batch_size", "num_epochs")
    assert order_fields(fields) == order_fields(reversed(fields)) == expected
    runs = [
        run(f"{depth}-{sampling}", depth=depth, sampling=sampling, target_latency_ms=4.0, seed=0)
        for depth in ("skip", "sink")
        for sampling in ("single", "bi_random")
    ]
    found = sort_runs(runs, ["depth", "sampling"])
    assert [(one.config["sampling"], one.config["depth"]) for one in found] == [
        *(("single", "skip"), ("single", "sink")),
        *(("bi_random", "skip"), ("bi_random", "sink")),
    ]
    experiment = experiment_of(runs)
    assert experiment.factors == ("sampling", "depth")
    assert experiment.label(runs[0], ["target_latency_ms", "depth", "sampling"]) == "single, skip, T = 4 ms"


def test_lines_of_a_title_fit_and_lose_no_letter():
    title = "bi_random, sink, T = 4 ms, WWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWW, λ = 0.1, $x$"
    lines = fit_lines(title, 1.5, 7.5)
    assert "".join(lines).replace(" ", "") == title.replace(" ", "")
    assert len(lines) > 2
    assert fit_lines("short", 1.5, 7.5) == ["short"]


def test_axes_contain_their_data(experiment):
    for drawing in make_drawings(experiment)[0]:
        figure = drawing.draw()
        figure.draw_without_rendering()
        for axes in figure.axes:
            data = axes.dataLim
            if axes.axison and axes.lines and data.width >= 0:
                # Limits may be inverted, and lines through the whole axis have no limits of their own.
                left, right = sorted(axes.get_xlim())
                bottom, top = sorted(axes.get_ylim())
                for line in axes.lines:
                    if line.get_transform() == axes.transData:
                        x, y = line.get_data()
                        assert left <= min(x) <= max(x) <= right, drawing.name
                        assert bottom <= min(y) <= max(y) <= top, drawing.name
