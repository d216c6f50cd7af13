import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.measures.depth import count_encodings, count_flips, measure_depth, network_of, redundant_share
from nas.space.macro_space import get_space
from tests.support.hand_made import kept, trajectory

REST = ([1, 1, 1, 1], [1, 1, 1, 1], [1])


def course(total_depths: list[int], num_warmup: int = 0):
    """A search whose derived depth is each of these in turn."""
    derived = np.where(np.arange(18) < np.array(total_depths)[:, None], 0, -1)
    return measure_depth(trajectory(len(total_depths), num_warmup, derived_op_EL=derived))


def test_fluctuation_is_the_mean_absolute_change_between_joint_epochs():
    assert course([3, 5, 4, 4]).fluctuation == pytest.approx((2 + 1 + 0) / 3)


def test_warmup_epochs_do_not_count():
    depth = course([18, 18, 7, 8], num_warmup=2)
    assert depth.fluctuation == 1.0


def test_one_joint_epoch_has_no_fluctuation():
    assert np.isnan(course([18, 7], num_warmup=1).fluctuation)


def test_a_flip_is_a_change_against_the_direction_of_the_last_change():
    # up, (none), up, down, down, up: two flips
    assert count_flips(np.array([1, 0, 2, -1, -1, 1])) == 2
    assert count_flips(np.array([], int)) == 0


def test_depth_is_counted_stage_by_stage():
    derived = kept([1, 0], [1, 1, 0], [1, 0, 0, 1], [1, 0, 0, 0], [1, 1, 1, 1], [1])[None]
    assert measure_depth(trajectory(1, derived_op_EL=derived)).depth_ES.tolist() == [[1, 2, 2, 1, 4, 1]]


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


def test_the_redundant_share_is_of_joint_epochs():
    redundant = np.array([True, True, True, False])
    assert redundant_share(trajectory(4, 2, depth="skip", redundant_E=redundant)) == 0.5
    assert np.isnan(redundant_share(trajectory(2, 2)))
