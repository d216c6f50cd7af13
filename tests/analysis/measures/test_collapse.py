from dataclasses import replace

import numpy as np
import pytest

from analysis.measures import MEASURES
from analysis.measures.collapse import (
    NO_LEADER,
    NOT_COUNTED,
    final_entropy,
    gini,
    measure_collapse,
    normalized_entropy,
    train_gini,
)
from tests.support.hand_made import NUM_LAYERS, alphas, experiment_of, run, trajectory

IDENTITY = 8
"""Index of identity among the candidates of the skip space."""


def kept_at_the_end(num_epochs: int, layers: list[int]) -> np.ndarray:
    """Derived operators of a search that keeps all layers, but only these in its last epoch."""
    derived_EL = np.zeros((num_epochs, NUM_LAYERS), np.int64)
    derived_EL[-1] = np.where(np.isin(np.arange(NUM_LAYERS), layers), 0, -1)
    return derived_EL


def with_identity(alpha_ELO: np.ndarray, probability_E: list[float]) -> np.ndarray:
    """The same with identity as the last candidate, which has this probability in all layers."""
    identity_EL1 = np.broadcast_to(np.array(probability_E)[:, None, None], (*alpha_ELO.shape[:2], 1))
    return np.concatenate([alpha_ELO + np.log1p(-identity_EL1), np.log(identity_EL1)], -1).astype(np.float32)


def test_the_leader_is_the_most_probable_candidate_and_equals_have_none():
    collapse = measure_collapse(trajectory(3, alpha_ELO=alphas([None, 3, 5], probability=0.4)))
    assert collapse.leader_EL[:, 0].tolist() == [NO_LEADER, 3, 5]
    assert collapse.probability_EL[:, 0] == pytest.approx([1 / 8, 0.4, 0.4], abs=1e-6)


def test_a_layer_is_locked_in_from_the_epoch_after_its_last_change_of_leader():
    leaders = [None, None, 1, 2, 2, 7, 2, 2, 2, 2]
    collapse = measure_collapse(trajectory(10, num_warmup=2, alpha_ELO=alphas(leaders)))
    assert (collapse.lock_in_epoch_L == 7).all()
    # Epochs 7 to 10 of the joint epochs 3 to 10.
    assert collapse.locked_share_of_epochs == 4 / 8


def test_a_leader_that_never_changes_is_locked_in_from_the_first_joint_epoch():
    collapse = measure_collapse(trajectory(6, num_warmup=2, alpha_ELO=alphas([None, None, 4, 4, 4, 4])))
    assert (collapse.lock_in_epoch_L == 3).all()
    assert (collapse.locked_early_share, collapse.locked_share_of_epochs) == (1.0, 1.0)


@pytest.mark.parametrize(("change_epoch", "share"), [(2, 1.0), (3, 0.0)])
def test_the_first_quarter_of_eight_joint_epochs_is_two_epochs(change_epoch: int, share: float):
    # Locked in at epoch 2 of 8 counts as early, at epoch 3 no longer.
    leaders = [1] * (change_epoch - 1) + [2] * (9 - change_epoch)
    assert measure_collapse(trajectory(8, alpha_ELO=alphas(leaders))).locked_early_share == share


def test_half_of_the_layers_locked_in_early_is_a_share_of_one_half():
    alpha_ELO = alphas([1, 2, 1, 2, 1, 2, 1, 2])
    alpha_ELO[:, :9] = alphas([2] + [1] * 7)[:, :9]
    collapse = measure_collapse(trajectory(8, alpha_ELO=alpha_ELO))
    assert collapse.locked_early_share == 0.5
    # Half of the layers are locked in for seven of eight epochs, half for one.
    assert collapse.locked_share_of_epochs == pytest.approx((7 / 8 + 1 / 8) / 2)


def test_a_search_without_joint_epochs_has_no_lock_in():
    course = trajectory(3, num_warmup=3, alpha_ELO=alphas([None, 2, 2]))
    assert_undefined(course)
    assert np.isnan(train_gini(course))


def assert_undefined(course) -> None:
    """No layer counts."""
    collapse = measure_collapse(course)
    assert np.isnan([collapse.locked_early_share, collapse.locked_share_of_epochs]).all()
    assert (collapse.lock_in_epoch_L == NOT_COUNTED).all()


@pytest.mark.parametrize("depth", ["sink", "skip"])
@pytest.mark.parametrize("num_warmup", [0, 2])
def test_a_search_without_one_architecture_step_has_no_collapse(depth: str, num_warmup: int):
    assert_undefined(trajectory(8, num_warmup, depth=depth))


@pytest.mark.parametrize("num_warmup", [0, 1])
def test_alphas_that_have_a_leader_but_never_move_have_no_collapse(num_warmup: int):
    assert_undefined(trajectory(6, num_warmup, alpha_ELO=alphas([3] * 6)))


def test_one_joint_epoch_that_moves_alphas_after_a_warmup_counts():
    moved = measure_collapse(trajectory(2, 1, alpha_ELO=alphas([None, 3])))
    assert (moved.locked_early_share, moved.locked_share_of_epochs) == (1.0, 1.0)
    # Without warm-up nothing tells whether the only epoch moved them.
    assert_undefined(trajectory(1, alpha_ELO=alphas([3])))


def test_alphas_that_return_to_where_they_began_have_moved():
    collapse = measure_collapse(trajectory(5, 1, alpha_ELO=alphas([3, 3, 5, 3, 3])))
    assert (collapse.lock_in_epoch_L == 4).all()
    assert collapse.locked_share_of_epochs == 2 / 4


@pytest.mark.parametrize("num_tied", [2, 8])
def test_a_layer_whose_best_operators_are_equal_at_the_end_does_not_count(num_tied: int):
    # As after one step of Adam, which moves all alphas by the same distance.
    alpha_ELO = alphas([None, 1, 2, 2, 2])
    tied_O = np.where(np.arange(8) < num_tied, 1.0, 0.5)
    alpha_ELO[-1, 1:] = np.log(tied_O / tied_O.sum())
    collapse = measure_collapse(trajectory(5, 1, alpha_ELO=alpha_ELO))
    assert collapse.lock_in_epoch_L.tolist() == [3] + [NOT_COUNTED] * 17
    alpha_ELO[-1, 0] = alpha_ELO[-1, 1]
    assert_undefined(trajectory(5, 1, alpha_ELO=alpha_ELO))


def test_early_lock_in_on_identity_alone_does_not_count():
    # Identity leads layers 9 to 17 from the first joint epoch to the end; the others lock in at the last one.
    alpha_ELO = with_identity(alphas([None, *([1, 2] * 4)]), [1 / 9] * 9)
    alpha_ELO[1:, 9:] = with_identity(alphas([1] * 8), [0.9] * 8)[:, 9:]
    course = trajectory(
        9, 1, depth="skip", alpha_ELO=alpha_ELO, derived_op_EL=kept_at_the_end(9, list(range(9)))
    )
    collapse = measure_collapse(course)
    assert (collapse.leader_EL[1:, 9:] == IDENTITY).all()
    assert collapse.lock_in_epoch_L.tolist() == [9] * 9 + [NOT_COUNTED] * 9
    assert (collapse.locked_early_share, collapse.locked_share_of_epochs) == (0.0, 1 / 8)


def test_lock_in_is_of_the_operators_also_while_identity_leads():
    # The leader of all candidates changes at the last epoch; that of the operators never does.
    alpha_ELO = with_identity(alphas([None, *([4] * 8)]), [1 / 9, *([0.9] * 7), 0.05])
    collapse = measure_collapse(trajectory(9, 1, depth="skip", alpha_ELO=alpha_ELO))
    assert collapse.leader_EL[:, 0].tolist() == [NO_LEADER, *([IDENTITY] * 7), 4]
    assert (collapse.lock_in_epoch_L == 2).all()
    assert (collapse.locked_early_share, collapse.locked_share_of_epochs) == (1.0, 1.0)


def test_operators_of_which_only_identity_moves_away_have_no_collapse():
    probability_E = [0.05, 0.1, 0.5, 0.999, 0.2, 1e-6]
    for operators_ELO in (alphas([None] * 6), alphas([3] * 6, probability=0.4)):
        alpha_ELO = with_identity(operators_ELO, probability_E)
        assert_undefined(trajectory(6, 1, depth="skip", alpha_ELO=alpha_ELO))


def test_operators_are_not_equal_because_identity_has_nearly_all_the_probability():
    alpha_ELO = with_identity(alphas([None, 1, 5, 5, 5]), [1 / 9, 1 - 1e-9, 1 - 1e-9, 1 - 1e-9, 0.1])
    collapse = measure_collapse(trajectory(5, 1, depth="skip", alpha_ELO=alpha_ELO))
    assert (collapse.lock_in_epoch_L == 3).all()
    assert collapse.locked_share_of_epochs == 3 / 4


@pytest.mark.parametrize(
    ("kept_layers", "share"), [(range(9, 18), 0.0), (range(9), 1.0), (range(8, 10), 0.5)]
)
def test_layers_that_the_last_network_does_not_keep_do_not_count(kept_layers: range, share: float):
    # Layers 0 to 8 lock in at the first joint epoch, layers 9 to 17 at the last one.
    alpha_ELO = alphas([None, *([1, 2] * 4)])
    alpha_ELO[1:, :9] = alphas([5] * 8)[:, :9]
    derived_EL = kept_at_the_end(9, list(kept_layers))
    collapse = measure_collapse(trajectory(9, 1, alpha_ELO=alpha_ELO, derived_op_EL=derived_EL))
    assert collapse.locked_early_share == share
    counted = np.flatnonzero(collapse.lock_in_epoch_L != NOT_COUNTED)
    assert counted.tolist() == list(kept_layers)


def test_a_network_without_any_searchable_layer_has_no_collapse():
    course = trajectory(3, 1, alpha_ELO=alphas([None, 1, 2]), derived_op_EL=kept_at_the_end(3, []))
    assert_undefined(course)


def test_only_kept_layers_that_moved_are_in_the_mean_of_a_mixed_search():
    # Two warm-up and eight joint epochs, 3 to 10. All layers but these are not kept:
    alpha_ELO = alphas([None, None, *([0] * 8)])
    alpha_ELO[:, 0] = alphas([None, None, 6, 6, 6, 6, 6, 6, 6, 6])[:, 0]  # from epoch 3 on: 8 of 8
    alpha_ELO[:, 1] = alphas([None, None, 6, 1, 6, 1, 1, 1, 1, 1])[:, 1]  # from epoch 6 on: 5 of 8
    alpha_ELO[:, 2] = alphas([None, None, 2, 2, 2, 2, 2, 2, 2, 3])[:, 2]  # from epoch 10 on: 1 of 8
    alpha_ELO[:, 3] = alphas([7] * 10)[:, 3]  # never moves
    course = trajectory(10, 2, alpha_ELO=alpha_ELO, derived_op_EL=kept_at_the_end(10, [0, 1, 2, 3]))
    collapse = measure_collapse(course)
    assert collapse.lock_in_epoch_L.tolist() == [3, 6, 10] + [NOT_COUNTED] * 15
    assert collapse.locked_early_share == pytest.approx(1 / 3)
    assert collapse.locked_share_of_epochs == pytest.approx((8 + 5 + 1) / 24)
    searched = replace(run(), trajectory=course)
    for name, value in (("locked_early_share", 1 / 3), ("locked_share_of_epochs", 14 / 24)):
        assert MEASURES[name].compute(searched, experiment_of([searched])) == pytest.approx(value)


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
    course = trajectory(2, alpha_ELO=np.zeros((2, 18, 1), np.float32))
    assert (measure_collapse(course).leader_EL == 0).all()
    assert_undefined(course)
