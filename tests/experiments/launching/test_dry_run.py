"""What a launch will cost, from what its epochs cost."""

import pytest

from experiments.cells.epoch_cost import EpochCost
from experiments.cells.search_cell import SearchCell
from experiments.cells.training_cell import TrainingCell
from experiments.launching.cell_states import CellState
from experiments.launching.dry_run import _costs_s, _foreseen
from nas.config import SearchConfig, TrainConfig
from nas.space.macro_space import get_space
from tests.support.tiny import make_dense_table

COST = EpochCost({"warmup": 1.0, "joint": 10.0}, num_weight_steps=3200)


def state(num_done: int = 0, **fields: object) -> CellState:
    config = SearchConfig.model_validate(
        {"space": "paper", "target_latency_ms": 1.0, "num_epochs": 7, "num_warmup_epochs": 3} | fields
    )
    return CellState(SearchCell(str(fields), {}, config, "data", {}, "table"), "missing", num_done)


@pytest.mark.parametrize(("num_done", "expected_s"), [(0, 43.0), (2, 41.0), (3, 40.0), (6, 10.0), (7, 0.0)])
def test_what_is_left_costs_as_much_as_its_epochs(num_done: int, expected_s: float) -> None:
    assert COST.left_s(state().cell.phases, num_done, warms_up=True) == expected_s


@pytest.mark.parametrize(("share_warmup", "expected_s"), [(True, [43, 40, 43, 40]), (False, [43] * 4)])
def test_a_shared_warm_up_is_paid_once(share_warmup: bool, expected_s: list[float]) -> None:
    states = [state(), state(target_latency_ms=2.0), state(seed=1), state(seed=1, target_latency_ms=2.0)]
    costs = {each.cell.cost_key: COST for each in states}
    assert list(_costs_s(states, costs, share_warmup=share_warmup).values()) == expected_s


def test_a_probe_has_an_architecture_step_however_rare_they_are() -> None:
    """As many weight steps as the whole search has; a table of its own, so nothing is measured."""
    config = SearchConfig(
        space="micro",
        target_latency_ms=5.0,
        max_train_images=700,
        weight_steps_per_arch_step=17,
        augmentation="none",
        device="cpu",
    )
    cost = SearchCell.time_epochs(config, make_dense_table(get_space("micro")), {})
    assert cost.seconds.keys() == {"warmup", "joint"}
    assert min(cost.seconds.values()) > 0
    # 560 of the 700 images are for weight steps of 32.
    assert cost.num_weight_steps == 17


@pytest.mark.parametrize("method", ["random", "gp_nas"])
def test_rounds_of_evaluation_are_timed_too(method: str) -> None:
    config = SearchConfig(
        method=method,
        space="nano",
        elasticity=False,
        target_latency_ms=100.0,
        max_train_images=700,
        augmentation="none",
        device="cpu",
    )
    table = make_dense_table(get_space("nano"), base_ms=99.0)
    cost = SearchCell.time_epochs(config, table, {})
    assert cost.seconds.keys() == {"warmup", "evaluation"}
    assert min(cost.seconds.values()) > 0
    assert config.phases.count("evaluation") == 10


PUBLISHED = {"num_epochs": 90, "num_warmup_epochs": 10}


def test_what_can_be_foreseen_is_warned_of_once_with_the_number_of_searches() -> None:
    short, long = {"num_epochs": 7, "num_warmup_epochs": 3}, PUBLISHED
    cells = [state(seed=seed, **fields).cell for fields in (short, long) for seed in (0, 1)]
    lines = _foreseen(cells, {cell.cost_key: COST for cell in cells})
    # 5 * 0.96^3 is the temperature of the fourth joint epoch; 6400 steps of 0.01 are a walk of 0.8.
    assert all(line.startswith("2 of 4 searches: ") for line in lines)
    (temperature,) = [line for line in lines if "temperature" in line]
    assert "4.4" in temperature
    assert temperature.endswith("; set final_temperature to 0.2, where the published schedule ends")
    assert [line for line in lines if "6400 architecture steps" in line and "walk of 0.8 " in line]
    assert len(lines) == 2


def test_nothing_is_warned_of_where_the_protocol_is_the_published_one() -> None:
    cell = state(**PUBLISHED).cell
    assert _foreseen([cell], {cell.cost_key: COST}) == []


def test_nothing_is_foreseen_of_trainings() -> None:
    config = TrainConfig(architecture="mobilenet_v2")
    cell = TrainingCell("train", {}, config, "images", {}, "mobilenet_v2")
    assert _foreseen([cell], {cell.cost_key: EpochCost({"training": 1.0}, num_weight_steps=0)}) == []
