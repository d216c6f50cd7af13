import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.measures import MEASURES
from analysis.measures.depth import (
    count_encodings,
    count_flips,
    count_redundant,
    measure_depth,
    most_probable_layers,
    network_of,
    redundant_share,
    skippable_layers,
)
from nas.config import Depth
from nas.search.records import Trajectory
from nas.search.search import Search
from nas.space.macro_space import SPACES, Space, StageSpec, get_space
from nas.supernet.supernet import Supernet
from tests.support.hand_made import experiment_of, kept, run, trajectory
from tests.support.tiny import NUM_CLASSES, TINY, make_config, make_dense_table

REST = ([1, 1, 1, 1], [1, 1, 1, 1], [1])


FULL = (2, 3, 4, 4, 4, 1)
FLOOR = (1, 1, 1, 1, 1, 1)
"""Depths of the stages of `paper` with all layers, and with as few as it may have."""


def search_of(depths_ES: Sequence[Sequence[int]], num_warmup: int = 0, depth: str = "sink") -> Trajectory:
    """A search whose stages keep their first layers, so many in each epoch."""
    derived = [
        kept(*([1] * d + [0] * (whole - d) for d, whole in zip(depths_S, FULL, strict=True)))
        for depths_S in depths_ES
    ]
    return of_derived(np.stack(derived), num_warmup, depth=depth)


def of_derived(derived_op_EL: np.ndarray, num_warmup: int = 0, *, depth: str = "sink") -> Trajectory:
    """A search of which only the derived networks are known."""
    return trajectory(
        len(derived_op_EL),
        num_warmup,
        depth=depth,
        derived_op_EL=derived_op_EL,
        alpha_ELO=None,
        beta_ESD=None,
    )


def course(*depths_ES: Sequence[int], num_warmup: int = 0):
    """How the depth of such a search developed."""
    return measure_depth(search_of(depths_ES, num_warmup))


@pytest.mark.parametrize("depth", ["sink", "skip"])
@pytest.mark.parametrize("derivation", ["argmax", "in_reach"])
def test_depth_is_that_of_the_most_probable_network_whatever_the_search_ends_with(
    depth: Depth, derivation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compared with the supernet's own choice; only shallow networks meet this target."""
    monkeypatch.setitem(SPACES._values, TINY.name, TINY)
    config = make_config(
        depth=depth,
        derivation=derivation,
        target_latency_ms=2.15,
        latency_weight=0.0,
        num_epochs=6,
        arch_lr=1.0,
    )
    search, most_probable = Search(config, make_dense_table(TINY)), []
    for _ in range(6):
        search.run_epoch()
        search.method.supernet.kept_ops = None
        most_probable.append(search.method.supernet.derived_ops())
    course = Trajectory.of(TINY.name, depth, search.records)
    assert most_probable_layers(course).tolist() == (np.array(most_probable) >= 0).tolist()
    is_same_E = (course.derived_op_EL == most_probable).all(axis=1)
    assert is_same_E[:-1].all()
    assert is_same_E[-1] == (derivation == "argmax")


def test_fluctuation_is_the_mean_absolute_change_between_joint_epochs():
    depth = course((2, 3, 4, 4, 4, 1), (2, 1, 4, 4, 4, 1), (2, 1, 4, 3, 4, 1), (2, 1, 4, 3, 4, 1))
    assert depth.fluctuation == pytest.approx((2 + 1 + 0) / 3)


def test_layers_that_move_from_stage_to_stage_keep_the_total_depth_but_fluctuate():
    one, other = (2, 1, 4, 4, 4, 1), (1, 2, 4, 4, 4, 1)
    depth = course(one, other, one, other)
    assert depth.depth_ES.sum(axis=1).tolist() == [16] * 4
    assert depth.depth_range == 0
    # Two layers a change. Of the six changes, one in each of two stages is left at the end.
    assert depth.fluctuation == pytest.approx(2)
    assert depth.fluctuation_without_drift == pytest.approx((6 - 2) / 3)
    assert depth.num_flips == 2 + 2


def test_a_layer_that_moves_within_its_stage_changes_no_depth():
    derived = [kept([1, 1], [1, 1, 1], stage, *REST) for stage in ([1, 0, 1, 1], [1, 1, 1, 0], [1, 1, 0, 1])]
    depth = measure_depth(of_derived(np.stack(derived), depth="skip"))
    assert (depth.fluctuation, depth.fluctuation_without_drift, depth.num_flips) == (0, 0, 0)


def test_warmup_epochs_do_not_count():
    depth = course(FULL, FLOOR, (1, 2, 1, 1, 1, 1), (1, 3, 1, 1, 1, 1), num_warmup=2)
    assert (depth.fluctuation, depth.num_flips, depth.depth_range) == (1.0, 0, 1.0)


def test_one_joint_epoch_has_no_fluctuation():
    depth = course(FULL, FLOOR, num_warmup=1)
    assert np.isnan([depth.fluctuation, depth.fluctuation_without_drift]).all()
    assert (depth.depth_range, depth.collapsed_to_floor) == (0.0, 1.0)


def test_without_joint_epochs_depth_has_not_been_searched():
    depth = course(FULL, FLOOR, num_warmup=2)
    assert np.isnan([depth.fluctuation, depth.depth_range, depth.collapsed_to_floor]).all()


def test_a_steady_drift_has_no_fluctuation_without_drift():
    depth = course(*[(2, 3, d, 4, 5 - d, 1) for d in (4, 3, 2, 1)])
    # One stage loses a layer per epoch, another one gains it.
    assert depth.fluctuation == pytest.approx(2)
    assert (depth.fluctuation_without_drift, depth.num_flips) == (0, 0)


def test_fluctuation_without_drift_is_the_movement_that_was_undone():
    # Stage 3: 4 -> 1 -> 3 -> 2, six layers moved for a net two. Stage 4: 1 -> 2 -> 2 -> 3, two for two.
    depth = course(*[(2, 3, *d, 4, 1) for d in ((4, 1), (1, 2), (3, 2), (2, 3))])
    assert depth.fluctuation == pytest.approx((6 + 2) / 3)
    assert depth.fluctuation_without_drift == pytest.approx((6 - 2) / 3)
    assert (depth.num_flips, depth.depth_range) == (2, 17 - 15)


@pytest.mark.parametrize(("num_epochs", "fluctuation"), [(4, 12 / 3), (81, 12 / 80)])
def test_a_skip_search_that_collapses_at_once_fluctuates_little_and_is_at_the_floor(
    num_epochs: int, fluctuation: float
):
    course = search_of([FULL, *([FLOOR] * (num_epochs - 1))], depth="skip")
    depth = measure_depth(course)
    assert depth.fluctuation == pytest.approx(fluctuation)
    assert depth.fluctuation_without_drift == 0
    assert (depth.depth_range, depth.collapsed_to_floor) == (12.0, 1.0)
    # The same where it has collapsed by the end of the first joint epoch, after a warm-up.
    depth = measure_depth(replace(course, is_joint_E=np.arange(num_epochs) > 0))
    assert (depth.fluctuation, depth.depth_range, depth.collapsed_to_floor) == (0.0, 0.0, 1.0)
    searched = replace(run(), trajectory=course)
    expected = {
        "depth_fluctuation": fluctuation,
        "depth_fluctuation_without_drift": 0.0,
        "depth_flips": 0.0,
        "depth_range": 12.0,
        "derived_depth": 6.0,
        "collapsed_to_floor": 1.0,
    }
    for name, value in expected.items():
        assert MEASURES[name].compute(searched, experiment_of([searched])) == pytest.approx(value)


@pytest.mark.parametrize("last", [FULL, (1, 1, 1, 2, 1, 1)])
def test_a_search_that_leaves_the_floor_has_not_collapsed_to_it(last: tuple[int, ...]):
    assert course(FLOOR, FLOOR, last).collapsed_to_floor == 0.0


@pytest.fixture
def add_space(monkeypatch: pytest.MonkeyPatch) -> Callable[[Space], str]:
    """Makes a space known by its name for one test."""

    def add(space: Space) -> str:
        monkeypatch.setitem(SPACES._values, space.name, space)
        return space.name

    return add


def search_in(space: str, derived_EL: list[list[int]]) -> Trajectory:
    """A search of a method without supernet."""
    num_epochs = len(derived_EL)
    is_joint_E = np.ones(num_epochs, bool)
    return Trajectory(space, "skip", np.arange(1, num_epochs + 1), is_joint_E, np.array(derived_EL))


def test_the_floor_of_a_stage_that_may_be_left_out_is_no_layer(add_space):
    space = add_space(TINY)
    # Two, three and one layers; the first stage can be left out as a whole.
    higher, floor = [[-1, 0, 0, -1, -1, 0]], [[-1, -1, 0, -1, -1, 0]]
    assert measure_depth(search_in(space, higher)).collapsed_to_floor == 0.0
    assert measure_depth(search_in(space, floor)).collapsed_to_floor == 1.0
    assert measure_depth(search_in(space, higher + floor)).fluctuation == 1.0


def test_a_space_whose_depth_is_fixed_has_neither_floor_nor_fluctuation(add_space):
    space = add_space(replace(TINY, name="fixed", stages=(StageSpec(6, 1, 2, "relu"),) * 2))
    depth = measure_depth(search_in(space, [[0, 0], [1, 0]]))
    assert np.isnan([depth.collapsed_to_floor, depth.fluctuation, depth.fluctuation_without_drift]).all()


@pytest.mark.parametrize("space", [*SPACES.values(), TINY], ids=lambda space: space.name)
def test_a_layer_can_be_skipped_exactly_where_it_keeps_the_shape(space: Space):
    assert skippable_layers(space).tolist() == [layer.keeps_shape for layer in space.layers]


def test_sinks_and_identity_can_skip_the_same_layers():
    is_skippable_L = skippable_layers(TINY)
    skip, sink = (Supernet(TINY, NUM_CLASSES, depth=depth) for depth in ("skip", "sink"))
    assert is_skippable_L.tolist() == skip.has_candidate_LO[:, -1].tolist()
    # A stage with n depths to choose from has n - 1 layers that can be skipped.
    stage_L = [layer.stage for layer in TINY.layers]
    assert np.bincount(stage_L, is_skippable_L).tolist() == (sink.has_depth_SD.sum(1) - 1).tolist()


some_depths = st.tuples(*(st.integers(1, whole) for whole in FULL))


@settings(max_examples=50, deadline=None)
@given(st.lists(some_depths, min_size=2, max_size=8))
def test_movement_is_what_was_undone_and_what_was_not(depths_ES: list[tuple[int, ...]]):
    depth = course(*depths_ES)
    pairs = list(itertools.pairwise(depths_ES))
    moved = sum(abs(b - a) for before, after in pairs for a, b in zip(before, after, strict=True))
    net = sum(abs(last - first) for first, last in zip(depths_ES[0], depths_ES[-1], strict=True))
    assert depth.fluctuation == pytest.approx(moved / len(pairs))
    assert depth.fluctuation_without_drift == pytest.approx((moved - net) / len(pairs))
    totals = [sum(depths_S) for depths_S in depths_ES]
    assert depth.depth_range == max(totals) - min(totals)
    assert depth.collapsed_to_floor == (depths_ES[-1] == FLOOR)


def test_a_flip_is_a_change_against_the_direction_of_the_last_change():
    # up, (none), up, down, down, up: two flips
    assert count_flips(np.array([1, 0, 2, -1, -1, 1])) == 2
    assert count_flips(np.array([], int)) == 0


def test_a_stage_that_gains_a_layer_after_another_lost_one_has_not_flipped():
    # Of the total depth it would be a flip.
    assert course((2, 3, 4, 3, 4, 1), (2, 3, 3, 3, 4, 1), (2, 3, 3, 4, 4, 1)).num_flips == 0
    assert course((2, 3, 4, 3, 4, 1), (2, 3, 3, 3, 4, 1), (2, 3, 4, 3, 4, 1)).num_flips == 1


def test_depth_is_counted_stage_by_stage():
    derived = kept([1, 0], [1, 1, 0], [1, 0, 0, 1], [1, 0, 0, 0], [1, 1, 1, 1], [1])[None]
    assert measure_depth(of_derived(derived)).depth_ES.tolist() == [[1, 2, 2, 1, 4, 1]]


def test_encodings_that_differ_only_in_where_skips_stand_are_one_network():
    first = kept([1, 1], [1, 1, 1], [1, 0, 1, 1], *REST)
    second = kept([1, 1], [1, 1, 1], [1, 1, 1, 0], *REST)
    third = kept([1, 1], [1, 1, 1], [1, 1, 0, 0], *REST)
    course = trajectory(4, depth="skip", derived_op_EL=np.stack([first, second, third, first]))
    assert count_encodings(course) == (3, 2)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-1, 7), min_size=18, max_size=18))
def test_networks_are_equal_exactly_when_the_records_of_their_layers_are(ops: list[int]):
    space = get_space("paper")
    network = network_of(np.array(ops), space)
    by_hand = (ops[:2], ops[2:5], ops[5:9], ops[9:13], ops[13:17], ops[17:])
    assert [list(stage) for stage in network] == [[op for op in stage if op != -1] for stage in by_hand]


def test_redundant_epochs_are_counted_among_joint_epochs():
    redundant = np.array([True, True, True, False, True])
    course = trajectory(5, 2, depth="skip", redundant_E=redundant)
    assert count_redundant(course) == 2
    assert redundant_share(course) == pytest.approx(2 / 3)
    searched = replace(run(), trajectory=course)
    assert MEASURES["num_redundant_epochs"].compute(searched, experiment_of([searched])) == 2


def test_without_joint_epochs_none_is_redundant_and_the_share_is_unknown():
    course = trajectory(2, 2, depth="skip", redundant_E=np.array([True, True]))
    assert count_redundant(course) == 0
    assert np.isnan(redundant_share(course))
