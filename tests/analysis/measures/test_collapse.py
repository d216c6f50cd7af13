import numpy as np
import pytest

from analysis.measures.collapse import (
    NO_LEADER,
    final_entropy,
    gini,
    measure_collapse,
    normalized_entropy,
    train_gini,
)
from tests.support.hand_made import alphas, trajectory


def test_the_leader_is_the_most_probable_candidate_and_equals_have_none():
    collapse = measure_collapse(trajectory(3, alpha_ELO=alphas([None, 3, 5], probability=0.4)))
    assert collapse.leader_EL[:, 0].tolist() == [NO_LEADER, 3, 5]
    assert collapse.probability_EL[:, 0] == pytest.approx([1 / 8, 0.4, 0.4], abs=1e-6)


def test_a_layer_is_locked_in_from_the_epoch_after_its_last_change_of_leader():
    leaders = [None, None, 1, 2, 2, 7, 2, 2, 2, 2]
    collapse = measure_collapse(trajectory(10, num_warmup=2, alpha_ELO=alphas(leaders)))
    assert (collapse.lock_in_epoch_L == 7).all()


def test_a_leader_that_never_changes_is_locked_in_from_the_first_joint_epoch():
    collapse = measure_collapse(trajectory(6, num_warmup=2, alpha_ELO=alphas([None, None, 4, 4, 4, 4])))
    assert (collapse.lock_in_epoch_L == 3).all()
    assert collapse.locked_early_share == 1.0


@pytest.mark.parametrize(("change_epoch", "share"), [(2, 1.0), (3, 0.0)])
def test_the_first_quarter_of_eight_joint_epochs_is_two_epochs(change_epoch: int, share: float):
    # Locked in at epoch 2 of 8 counts as early, at epoch 3 no longer.
    leaders = [1] * (change_epoch - 1) + [2] * (9 - change_epoch)
    assert measure_collapse(trajectory(8, alpha_ELO=alphas(leaders))).locked_early_share == share


def test_half_of_the_layers_locked_in_early_is_a_share_of_one_half():
    alpha_ELO = alphas([1, 2, 1, 2, 1, 2, 1, 2])
    alpha_ELO[:, :9] = alphas([1] * 8)[:, :9]
    assert measure_collapse(trajectory(8, alpha_ELO=alpha_ELO)).locked_early_share == 0.5


def test_a_search_without_joint_epochs_has_no_lock_in():
    course = trajectory(3, num_warmup=3)
    assert np.isnan(measure_collapse(course).locked_early_share)
    assert np.isnan(train_gini(course))


def test_entropy_is_one_for_equal_and_zero_for_certain_candidates():
    assert normalized_entropy(np.array([[0.0, -900, -900, -900]])) == pytest.approx(0)
    assert normalized_entropy(np.log(np.full((1, 4), 0.25))) == pytest.approx(1)
    assert normalized_entropy(np.array([[0.0, -np.inf]])) == 0


def test_entropy_of_equal_candidates_is_one_also_where_a_layer_lacks_the_ninth():
    alpha_ELO = np.full((1, 18, 9), -np.log(9), np.float32)
    alpha_ELO[:, 0] = [*([-np.log(8)] * 8), -np.inf]
    assert normalized_entropy(alpha_ELO[0]) == pytest.approx(np.ones(18))
    assert final_entropy(trajectory(1, depth="skip", alpha_ELO=alpha_ELO)) == pytest.approx(1)


def test_gini_is_zero_for_equal_counts_and_nears_one_where_one_operator_has_all():
    assert gini(np.array([5, 5, 5, 5])) == 0
    assert gini(np.array([0, 0, 0, 8])) == pytest.approx(3 / 4)
    # By the Lorenz curve: 1 - 2 * area under (0, 0), (1/2, 1/4), (1, 1).
    assert gini(np.array([1, 3])) == pytest.approx(1 - 2 * (0.5 * 0.25 / 2 + 0.5 * (0.25 + 1) / 2))


def test_only_paths_of_joint_epochs_through_operators_are_counted():
    counts = np.zeros((4, 18, 9), np.int64)
    counts[:2, :, 0] = 100
    counts[2:, :, :8] = 3
    assert train_gini(trajectory(4, num_warmup=2, train_count_ELO=counts)) == 0
    counts[3, :, 0] += 24
    expected = gini(np.array([30, *([6] * 7)]))
    assert train_gini(trajectory(4, num_warmup=2, train_count_ELO=counts)) == pytest.approx(expected)


def test_a_layer_with_a_single_candidate_is_led_by_it():
    collapse = measure_collapse(trajectory(2, alpha_ELO=np.zeros((2, 18, 1), np.float32)))
    assert (collapse.leader_EL == 0).all()
