"""Trained networks: their accuracies, intervals and costs, from runs made by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis.figures.tradeoff_figure import tradeoff_drawings
from analysis.measures import measure_runs
from analysis.measures.summary import summarize
from analysis.measures.trained_groups import trained_groups
from analysis.reading.experiment import Experiment
from analysis.reading.experiment_reader import read_experiment, read_trainings
from analysis.reading.nothing_to_draw import NothingToDrawError
from analysis.reading.run import Run
from analysis.tables.published_table import published_table
from analysis.tables.table_files import to_csv
from analysis.tables.trained_table import trained_table
from analysis.verdicts import judge
from tests.support.hand_made import experiment_of, run, training
from tests.support.synthetic import Store, grid

COSTS = {"num_parameters": 2e6, "num_macs": 3e7, "size_bytes": 8.5e6, "num_test_images": 1000.0}
NUM_SEEDS = 7


def searches(sampling: str, latency_ms: float = 1.0) -> list[Run]:
    return [
        run(
            f"{sampling}-{seed}",
            {"derived_latency_ms": latency_ms, "val_accuracy": 0.5},
            sampling=sampling,
            target_latency_ms=1.0,
            seed=seed,
        )
        for seed in range(NUM_SEEDS)
    ]


def accuracy_of(search: Run, seed: int) -> float:
    return 0.8 + 0.01 * float(search.number("seed")) + 0.001 * seed


@pytest.fixture
def experiment() -> Experiment:
    """Two settings of searches, of which one's networks were trained twice each; and one baseline."""
    bi, single = searches("bi_random"), searches("single")
    trainings = [
        training(
            f"run:{search.run_id}",
            search,
            seed,
            test_accuracy=accuracy_of(search, seed),
            measured_latency_ms=1.5,
            latency_ratio_to_efficientnet_b0=0.25,
            **COSTS,
        )
        for search in bi
        for seed in (0, 1)
    ]
    baselines = [
        training(
            "efficientnet_b0",
            None,
            seed,
            test_accuracy=0.9 + 0.02 * seed,
            measured_latency_ms=6.0,
            latency_ratio_to_efficientnet_b0=1.0,
            **COSTS,
        )
        for seed in (0, 1)
    ]
    return experiment_of([*bi, *single], [*trainings, *baselines])


def test_a_setting_counts_its_searches_and_a_baseline_its_seeds(experiment):
    searched, baseline = trained_groups(experiment)
    assert (searched.name, searched.num_seeds, len(searched.runs)) == ("bi_random", NUM_SEEDS, 2 * NUM_SEEDS)
    assert (baseline.name, baseline.num_seeds, len(baseline.runs)) == ("efficientnet_b0", 2, 2)


def test_accuracy_over_seeds_is_the_mean_of_each_searchs_mean(experiment):
    searched, baseline = trained_groups(experiment)
    of_searches = [0.8 + 0.01 * seed + 0.0005 for seed in range(NUM_SEEDS)]
    expected = summarize(of_searches)
    found = searched.over_seeds("test_accuracy")
    assert (found.n, found.mean) == (NUM_SEEDS, pytest.approx(expected.mean))
    assert found.interval == pytest.approx(expected.interval)
    assert baseline.over_seeds("test_accuracy").interval is None


def test_accuracy_on_images_has_wilsons_interval_however_few_the_seeds(experiment):
    _, baseline = trained_groups(experiment)
    found = baseline.accuracy_over_images()
    z, p, n = 1.959964, 0.91, 1000
    centre, spread = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    expected = ((centre - spread) / (1 + z**2 / n), (centre + spread) / (1 + z**2 / n))
    assert (found.n, found.mean) == (1000, pytest.approx(0.91))
    assert found.interval == pytest.approx(expected, abs=1e-6)


def test_the_table_has_accuracy_size_cost_and_both_latencies_of_every_network(experiment):
    table = trained_table(experiment)
    names = [column.name for column in table.columns]
    rows = [dict(zip(names, row, strict=True)) for row in table.rows]
    assert [row["network"] for row in rows] == ["bi_random", "efficientnet_b0"]
    for row, latency_ms, ratio in zip(rows, (1.5, 6.0), (0.25, 1.0), strict=True):
        assert row["parameters_millions"].mean == pytest.approx(2)
        assert row["macs_millions"].mean == pytest.approx(30)
        assert row["size_mb"].mean == pytest.approx(8.5)
        assert row["measured_latency_ms"].mean == latency_ms
        assert row["latency_ratio_to_efficientnet_b0"].mean == ratio
    assert rows[0]["table_latency_ms"].mean == 1.0
    assert rows[1]["table_latency_ms"].n == 0
    assert "batch size 1" in table.caption
    assert "test_accuracy_on_images_low" in to_csv(table)


def test_the_table_says_which_networks_were_searched_on_other_images_than_they_are_trained_on(experiment):
    assert "other images" not in trained_table(experiment).caption
    runs = [
        replace(each, tags={**each.tags, "tfnas.searched_on": "image_folder 'birds'"})
        if "tfnas.search_run" in each.tags
        else each
        for each in experiment.training
    ]
    caption = trained_table(replace(experiment, training=tuple(runs))).caption
    assert caption.endswith(" Searched on other images than trained on: bi_random on image_folder 'birds'.")


def test_trainings_on_two_folders_of_images_are_rows_of_their_own_by_name(experiment):
    runs = [
        replace(each, config={**each.config, "images": name})
        for each in experiment.training
        for name in ("birds", "cats")
    ]
    names = [group.name for group in trained_groups(replace(experiment, training=tuple(runs)))]
    assert sorted(names) == [
        f"{network}, images {name}"
        for network in ("bi_random", "efficientnet_b0")
        for name in ("birds", "cats")
    ]


SELECTED = "selected on test images"


def test_accuracies_that_the_test_images_chose_are_marked_wherever_they_stand(experiment):
    chosen = [replace(one, config=one.config | {"val_fraction": 0}) for one in experiment.training]
    for trainings, is_selected in ((experiment.training, False), (chosen, True)):
        found = experiment_of(experiment.runs, trainings)
        table = trained_table(found)
        column = [one.name for one in table.columns].index("epoch_chosen_on")
        assert {row[column] for row in table.rows} == {"test images" if is_selected else "held-out images"}
        captions = [
            table.caption,
            published_table(found, measure_runs(found)).caption,
            tradeoff_drawings(found)[0].caption,
        ]
        assert [SELECTED in caption for caption in captions] == [is_selected] * 3


def test_trainings_under_different_terms_are_rows_of_their_own():
    (search,) = searches("bi_random")[:1]
    trainings = [
        training(name, found, lr=lr, test_accuracy=accuracy)
        for name, found in (("run:x", search), ("efficientnet_b0", None))
        for lr, accuracy in ((0.1, 0.8), (0.2, 0.7))
    ]
    groups = trained_groups(experiment_of([search], trainings))
    assert {(group.name, group.num_seeds, group.over_seeds("test_accuracy").mean) for group in groups} == {
        ("by hand, lr = 0.1", 1, 0.8),
        ("by hand, lr = 0.2", 1, 0.7),
        ("efficientnet_b0, lr = 0.1", 1, 0.8),
        ("efficientnet_b0, lr = 0.2", 1, 0.7),
    }


def test_without_a_training_there_is_no_table_of_them():
    experiment = experiment_of(searches("bi_random"))
    with pytest.raises(NothingToDrawError, match="no network was trained"):
        trained_table(experiment)


def test_latencies_of_different_sessions_are_said_to_be(experiment):
    later = training("mobilenet_v2", session="evening", test_accuracy=0.8, measured_latency_ms=2.0, **COSTS)
    mixed = experiment_of(experiment.runs, [*experiment.training, later])
    caption = "only the ratios compare"
    assert caption not in trained_table(experiment).caption
    assert caption in trained_table(mixed).caption


def test_the_published_table_has_accuracy_and_size_of_what_was_trained_here(experiment):
    table = published_table(experiment, measure_runs(experiment))
    names = [column.name for column in table.columns]
    rows = {row[0]: dict(zip(names, row, strict=True)) for row in table.rows[: table.rule_before]}
    assert set(rows) == {"bi_random", "single", "efficientnet_b0"}
    assert rows["bi_random"]["top1"].mean == pytest.approx(0.8305)
    assert rows["bi_random"]["parameters_millions"].mean == pytest.approx(2)
    assert rows["efficientnet_b0"]["macs_millions"].mean == pytest.approx(30)
    assert rows["single"]["top1"].n == 0


def test_the_figure_shows_measured_latencies_and_baselines_where_all_were_measured_together(experiment):
    (drawing,) = tradeoff_drawings(experiment)
    labels = panel_of(drawing)
    assert "against measured latency" in drawing.caption
    assert labels == ["bi_random (n = 7 seeds)", "efficientnet_b0 (n = 2 seeds)"]
    unmeasured = training("mobilenet_v2", test_accuracy=0.8, **COSTS)
    (drawing,) = tradeoff_drawings(experiment_of(experiment.runs, [*experiment.training, unmeasured]))
    assert "against latency in the lookup table" in drawing.caption
    assert panel_of(drawing) == ["bi_random (n = 7 seeds)"]


def panel_of(drawing) -> list[str]:
    figure = drawing.draw()
    return figure.axes[0].get_legend_handles_labels()[1]


def test_claim_e_is_judged_by_test_accuracies_of_trained_networks():
    method = {"sampling": "bi_random", "depth": "sink", "elasticity": True}
    baseline = {"sampling": "single", "depth": "skip", "elasticity": False}
    runs = [
        run(
            f"{fields['sampling']}-{seed}",
            {"derived_latency_ms": 1.0, "val_accuracy": 0.5},
            target_latency_ms=1.0,
            seed=seed,
            **fields,
        )
        for fields in (method, baseline)
        for seed in range(12)
    ]
    trainings = [
        training(
            f"run:{search.run_id}",
            search,
            test_accuracy=0.8
            + (0.03 + 0.001 * (search.number("seed") - 5.5)) * (search.config["sampling"] == "bi_random"),
        )
        for search in runs
    ]
    experiment = experiment_of(runs, trainings)
    (verdict,) = (each for each in judge(experiment, measure_runs(experiment)) if each.name == "e")
    assert verdict.status == "supported"
    assert verdict.caveats == ()
    chosen = [replace(one, config=one.config | {"val_fraction": 0}) for one in trainings]
    experiment = experiment_of(runs, chosen)
    assert any(SELECTED in line for line in judge(experiment, measure_runs(experiment))[-1].caveats)
    assert verdict.estimate.n == 12
    assert verdict.estimate.mean == pytest.approx(0.03)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path, "trained")


def test_only_trainings_under_the_terms_of_most_are_read(store):
    (search,) = store.add_grid({"target_latency_ms": 1.0}, grid(seed=[0]))
    long = [store.add_training(f"run:{search}", search, num_epochs=50)]
    long += [store.add_training("efficientnet_b0", seed=seed, num_epochs=50) for seed in (0, 1)]
    store.add_training("efficientnet_b0", num_epochs=2)
    experiment = read_experiment("trained", store.tracking_uri)
    assert {run.run_id for run in experiment.training} == set(long)
    assert "1 training left out: other terms (num_epochs 2, not 50)" in experiment.notices


def test_trainings_of_searches_that_are_left_out_are_left_out(store):
    kept, _ = store.add_grid({"target_latency_ms": 1.0}, grid(seed=[0, 1]))
    other = store.add({"target_latency_ms": 1.0, "seed": 0}, ["seed"], results_version="1")
    expected = store.add_training(f"run:{kept}", kept)
    store.add_training(f"run:{other}", other)
    (found,) = read_experiment("trained", store.tracking_uri).training
    assert found.run_id == expected


def test_trainings_can_be_read_without_any_search(store):
    store.add_training("efficientnet_b0")
    experiment = read_trainings("trained", store.tracking_uri, {"train-efficientnet_b0-s0"})
    (row,) = trained_table(experiment).rows
    assert row[:2] == ("efficientnet_b0", 1)
