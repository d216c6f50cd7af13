"""Random search: what is trained, what is evaluated, what it ends with."""

from pathlib import Path

import numpy as np
import pytest
import torch

from nas.config import SearchConfig
from nas.foundation.errors import UserError
from nas.search.candidate_pool import draw_pool
from nas.search.records import EpochRecord
from nas.search.search import Search, run_search
from nas.supernet.supernet import Supernet
from tests.support.tiny import TINY, assert_identical, make_config, make_dense_table, make_images

TABLE = make_dense_table(TINY)


def config_of(**fields: object) -> SearchConfig:
    return make_config(**{"method": "random", "num_epochs": 3, "num_evaluations": 20} | fields)


def search(config: SearchConfig, warmups: Path | None = None) -> list[EpochRecord]:
    return list(run_search(config, table=TABLE, warmups_dir=warmups))


@pytest.fixture(scope="module")
def records() -> list[EpochRecord]:
    """Of one search, for all tests that only look at them."""
    return search(config_of())


def test_it_ends_with_the_network_of_highest_accuracy_among_the_first_of_the_pool(
    records: list[EpochRecord],
) -> None:
    config = config_of()
    evaluations = [each for record in records for each in record.evaluations]
    assert [each.architecture for each in evaluations] == draw_pool(config, TABLE)[:20]
    assert [each.number for each in evaluations] == list(range(1, 21))
    best = max(evaluations, key=lambda each: each.val_accuracy)
    assert records[-1].architecture == best.architecture
    assert records[-1].metrics["val_accuracy"] == best.val_accuracy
    assert all(each.latency_ms == TABLE.latency_ms(each.architecture) for each in evaluations)


def test_rounds_of_ten_follow_as_many_epochs_of_training_as_any_search_has(
    records: list[EpochRecord],
) -> None:
    assert [record.phase for record in records] == ["warmup"] * 3 + ["evaluation"] * 2
    assert [len(record.evaluations) for record in records] == [0, 0, 0, 10, 10]
    best = [record.metrics["val_accuracy"] for record in records[3:]]
    assert best == sorted(best)


def test_every_weight_step_trains_one_random_network() -> None:
    """40 images in batches of 10 are 4 steps; a first layer that no network drops is in each of them."""
    records = search(config_of(num_epochs=20))
    counts_ELO = np.stack([record.arrays["train_count_ELO"] for record in records])[:20]
    per_layer_L = counts_ELO.sum((0, 2))
    for index, layer in enumerate(TINY.layers):
        lowest, num_layers = TINY.min_depth(layer.stage), TINY.stages[layer.stage].num_layers
        # A layer is kept by the share of uniform depths that reach it.
        share = min(1, (num_layers - layer.index) / (num_layers - lowest + 1))
        assert per_layer_L[index] == pytest.approx(80 * share, abs=4 * (80 * share * (1 - share)) ** 0.5)
    assert counts_ELO.sum((0, 1))[: len(TINY.ops)].min() > 0


def test_a_derived_network_runs_the_layers_that_are_kept_and_no_other() -> None:
    supernet, ops_L = Supernet(TINY, 10, seed=0), [-1, 3, 3, -1, -1, 5]
    images_BCHW = make_images(TINY)
    features_BCHW = supernet.stem_features(images_BCHW)
    derived_BK = supernet.forward_derived(features_BCHW, ops_L)
    for index in (1, 2, 5):
        features_BCHW = supernet.blocks[index](features_BCHW, ops_L[index])
    expected_BK = supernet.classifier(supernet.head(features_BCHW).mean((2, 3)))
    assert torch.equal(derived_BK, expected_BK)


def test_searches_for_other_targets_share_all_their_training(tmp_path: Path) -> None:
    first, second = config_of(), config_of(target_latency_ms=2.4, num_evaluations=30)
    assert not any(record.is_shared for record in search(first, tmp_path))
    records = search(second, tmp_path)
    assert [record.is_shared for record in records] == [True] * 3 + [False] * 3
    assert_identical(records, search(second))


def test_the_training_of_a_differentiable_search_is_not_shared(tmp_path: Path) -> None:
    search(config_of(), tmp_path)
    records = list(run_search(make_config(num_epochs=3), table=TABLE, warmups_dir=tmp_path))
    assert not any(record.is_shared for record in records)


def test_the_widths_of_training_differ_from_epoch_to_epoch_within_their_intervals() -> None:
    run = Search(config_of(), TABLE)
    widths = []
    for _ in range(3):
        run.run_epoch()
        widths.append(run.method.supernet.widths())
    widths_ELO = np.array(widths)
    assert (widths_ELO[0] != widths_ELO[1]).any()
    for index, layer in enumerate(TINY.layers):
        for op in range(len(TINY.ops)):
            low, high = TINY.ops[op].width_interval(layer.in_channels)
            assert ((low <= widths_ELO[:, index, op]) & (widths_ELO[:, index, op] <= high)).all()


def test_a_target_that_few_networks_meet_is_refused_before_anything_is_trained() -> None:
    with pytest.raises(UserError, match="num_evaluations"):
        Search(config_of(elasticity=False, target_latency_ms=2.09), TABLE)


def test_without_elasticity_the_initial_widths_are_trained_that_are_evaluated(tmp_path: Path) -> None:
    run = Search(config_of(elasticity=False), TABLE)
    run.run_epoch()
    initial_LO = [[op.initial_width(layer.in_channels) for op in TINY.ops] for layer in TINY.layers]
    assert run.method.supernet.widths() == initial_LO
    search(config_of(elasticity=False), tmp_path)
    assert not any(record.is_shared for record in search(config_of(), tmp_path))


def test_what_a_network_is_worth_does_not_depend_on_those_evaluated_before() -> None:
    run = Search(config_of(), TABLE)
    for _ in range(5):
        run.run_epoch()
    method = run.method
    backwards = [method._evaluate_candidate(1, index, None).val_accuracy for index in reversed(range(20))]
    found = [each.val_accuracy for record in run.records for each in record.evaluations]
    assert found == backwards[::-1]
    # If all were alike, this would show nothing.
    assert len(set(found)) > 2


@pytest.mark.parametrize("first", ["sink", "skip"])
def test_a_depth_that_is_ignored_changes_nothing(tmp_path: Path, first: str) -> None:
    other = {"sink": "skip", "skip": "sink"}[first]
    expected = search(config_of(depth=first), tmp_path / "warmups")
    assert_identical(search(config_of(depth=other), tmp_path / "warmups"), expected)
    begun = run_search(config_of(depth=first), table=TABLE, checkpoint_dir=tmp_path / "own")
    for _ in range(2):
        next(begun)
    begun.close()
    resumed = list(run_search(config_of(depth=other), table=TABLE, checkpoint_dir=tmp_path / "own"))
    assert_identical(resumed, expected)


def test_fields_that_are_ignored_are_not_checked() -> None:
    config = config_of(num_epochs=2, num_warmup_epochs=10, final_temperature=99.0)
    assert [record.phase for record in search(config)].count("warmup") == 2
