"""Latency: elasticity-scaling, objectives, trade-off with accuracy, predictions against measurements."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.figures.calibration_figure import draw_calibration, save_calibration
from analysis.figures.depth_figure import depth_drawings
from analysis.figures.ink.style import new_figure, our_style
from analysis.figures.latency_figure import most_moved, objective_drawings, scaling_drawings, walk_courses
from analysis.figures.tradeoff_figure import fit_latencies, points_by_method, tradeoff_drawings
from analysis.measures.published_networks import PUBLISHED_NETWORKS, is_of_imagenet
from analysis.reading.nothing_to_draw import NothingToDrawError, OutOfPlaceError
from analysis.reading.run import Run
from nas.latency.calibration import Agreement, TableCheck, fit_calibration
from nas.latency.drift import Timing
from tests.support.hand_made import experiment_of, run, trajectory
from tests.support.synthetic import make_table

WALKS = {"a": [8.0, 9.9, 9.95, 10.0], "b": [12.0, 9.8, 9.9, 10.0], "c": [11.0, 10.5], "d": [5.0, 5.1]}


def scaled(name: str) -> Run:
    scaling_EP = np.full((2, 7), np.nan)
    scaling_EP[1, : len(WALKS[name])] = WALKS[name]
    made = run(name, space="paper", target_latency_ms=10.0, seed=ord(name))
    return replace(made, trajectory=trajectory(2, scaling_ms_EP=scaling_EP))


def test_a_median_is_of_the_same_runs_at_every_step():
    runs = [scaled(name) for name in WALKS]
    walks = {one.run_id: np.array(WALKS[one.name]) for one in runs}
    whole, early = walk_courses(runs, walks)
    assert whole.percent_NP[:, 0].tolist() == pytest.approx([-20, 20])
    assert whole.percent_NP.shape == (2, 4)
    assert early.percent_NP.ravel().tolist() == pytest.approx([10, 5, -50, -49])
    assert (whole.label, early.label) == (
        "median of 2 runs",
        "median of 2 runs whose target was out of reach",
    )


def test_the_example_is_a_run_in_which_something_happens():
    runs = [scaled(name) for name in WALKS]
    walks = {one.run_id: np.array(WALKS[one.name]) for one in runs}
    # d began farthest from its target, and stayed there.
    assert most_moved(runs, walks).name == "b"


def test_the_published_example_lies_within_the_axes_of_a_small_space():
    figure = scaling_drawings(experiment_of([scaled("c")]))[0].draw()
    assert figure.axes[1].get_xlim()[1] >= 3
    (drawing,) = scaling_drawings(experiment_of([scaled("a")]))
    assert drawing.numbers["latency_ms"].tolist() == WALKS["a"]


def with_epochs(name: str, **config: object) -> Run:
    epochs = pd.DataFrame({"derived_latency_ms": [9.0, 11.0]}, index=[1, 2])
    fields = {"space": "paper", "target_latency_ms": 10.0, "num_epochs": 2, "num_warmup_epochs": 0}
    return replace(run(name, **fields | config), epochs=epochs)


def test_the_figure_of_objectives_is_left_out_with_one_objective():
    runs = [with_epochs(f"{depth}", depth=depth, seed=0) for depth in ("skip", "sink")]
    with pytest.raises(OutOfPlaceError):
        objective_drawings(experiment_of(runs))
    with pytest.raises(OutOfPlaceError):
        objective_drawings(experiment_of([with_epochs(str(e), elasticity=e, seed=0) for e in (True, False)]))
    runs = [with_epochs(str(weight), latency_weight=weight, seed=0) for weight in (0.1, 0.2)]
    (drawing,) = objective_drawings(experiment_of(runs))
    assert drawing.title == "Latency under each objective"
    assert drawing.numbers["percent_of_target"].tolist() == pytest.approx([90, 110, 90, 110])


def test_depth_leaves_out_methods_that_search_nothing_epoch_by_epoch():
    searched = replace(
        run("tf_nas", method="tf_nas", seed=0, space="paper"), trajectory=trajectory(3, num_warmup=1)
    )
    trained = replace(
        run("random", method="random", seed=0, space="paper"), trajectory=trajectory(3, num_warmup=3)
    )
    (drawing,) = depth_drawings(experiment_of([searched, trained]))
    assert [one.name for one in drawing.runs] == ["tf_nas"]
    assert "Left out: 1 trial" in drawing.caption
    assert len(drawing.draw().axes) == 1
    with pytest.raises(NothingToDrawError):
        depth_drawings(experiment_of([trained]))


def found(target_ms: float, seed: int, **config: object) -> Run:
    metrics = {"derived_latency_ms": target_ms, "val_accuracy": 0.5 + 0.01 * seed}
    return run(f"T{target_ms}-s{seed}", metrics, target_latency_ms=target_ms, seed=seed, **config)


def test_seeds_are_counted_and_not_trials():
    runs = [found(target_ms, 0) for target_ms in (1.0, 2.0)]
    (points,) = points_by_method(experiment_of(runs), runs)
    assert points.label == "trials (n = 1 seed, 2 trials)"
    assert "n = 2 trials of 1 seed." in tradeoff_drawings(experiment_of(runs))[0].caption
    runs = [found(1.0, seed) for seed in range(2)]
    assert points_by_method(experiment_of(runs), runs)[0].label == "trials (n = 2 seeds)"


@pytest.mark.parametrize(
    ("config", "is_imagenet"),
    [
        ({"dataset": "fashion_mnist_subset"}, False),
        ({"dataset": "cifar10", "data_dir": "/imagenet/of/me/cifar"}, False),
        ({"dataset": "image_folder", "data_dir": "../data/imagenet-100"}, True),
        ({"dataset": "image_folder", "data_dir": "/data/ILSVRC2012"}, True),
        ({"dataset": "image_list", "data_dir": "/data", "train_list": "/data/imagenet/train.txt"}, True),
    ],
)
def test_published_networks_stand_beside_trials_on_imagenet_only(
    config: dict[str, object], is_imagenet: bool
):
    runs = [found(target_ms, 0, **config) for target_ms in (1.0, 2.0)]
    assert is_of_imagenet(runs[0]) == is_imagenet
    (drawing,) = tradeoff_drawings(experiment_of(runs))
    assert len(drawing.draw().axes) == (3 if is_imagenet else 1)
    assert ("published" in drawing.caption) == is_imagenet
    assert len(drawing.numbers) == 2 + is_imagenet * len(PUBLISHED_NETWORKS)


def make_check() -> TableCheck:
    predicted_ms_N = np.array([1.0, 2.0, 3.0])
    measured_ms_N = np.array([1.1, 2.0, 3.2])
    timings = tuple(Timing(value, 0.5, 16) for value in measured_ms_N)
    agreement = Agreement.of(predicted_ms_N, measured_ms_N)
    return TableCheck((), predicted_ms_N, timings, agreement, fit_calibration(predicted_ms_N, measured_ms_N))


def test_nothing_of_a_latency_check_is_cut_off_or_outside_its_axes():
    table = make_table("paper")
    device = "AMD EPYC MMMMMMMM WWWWWWWWWW 64-Core Processor @ 2.40GHz"
    table = table.model_copy(
        update={"provenance": table.provenance.model_copy(update={"device_name": device})}
    )
    with our_style():
        name = "latency-table-paper-cpu-threads1-batch32-WWWWWWWWWWWWWW.json"
        figure = draw_calibration(name, table, make_check())
        figure.draw_without_rendering()
        box, whole = figure.get_tightbbox(), figure.get_size_inches()
    assert box.x0 >= 0
    assert box.y0 >= 0
    assert box.x1 <= whole[0]
    assert box.y1 <= whole[1]
    assert figure.axes[0].get_ylim()[1] > 3.2 + 0.5 / 2


def test_the_numbers_of_a_latency_check_are_beside_its_plot(tmp_path: Path):
    save_calibration("table", make_table("paper"), make_check(), tmp_path / "plot.svg")
    numbers = pd.read_csv(tmp_path / "plot.csv")
    assert numbers["predicted_ms"].tolist() == [1, 2, 3]
    assert numbers["measured_ms"].tolist() == [1.1, 2, 3.2]


@pytest.mark.parametrize(("largest_ms", "scale"), [(4.9, "linear"), (20.0, "log")])
def test_a_much_slower_network_makes_the_latency_axis_logarithmic_with_plain_numbers(
    largest_ms: float, scale: str
):
    axes = new_figure(3, 2).subplots()
    axes.plot([1.0, largest_ms], [0.5, 0.6])
    fit_latencies(axes, [1.0, largest_ms])
    axes.figure.canvas.draw()
    assert axes.get_xscale() == scale
    assert {"1", "2", "5"} <= {label.get_text() for label in axes.get_xticklabels()} or scale == "linear"
