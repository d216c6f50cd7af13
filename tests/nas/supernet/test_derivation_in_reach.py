"""Derivation in reach: the most probable network that widths can bring to the target, by brute force."""

import itertools
import math

import pytest

from nas.config import Depth
from nas.latency.elasticity import elasticity_scaling
from nas.search.search import Search
from nas.space.architecture import Architecture
from nas.supernet.derivation import most_probable_in_reach
from nas.supernet.supernet import Supernet
from tests.support.tiny import SKIP, TINY, make_config, make_dense_table, make_supernet

DEPTHS = pytest.mark.parametrize("depth", ["sink", "skip"])
TABLE = make_dense_table(TINY)


def architecture_of(ops: list[int]) -> Architecture:
    stages: list[list[dict[str, object]]] = [[] for _ in TINY.stages]
    for layer, op in zip(TINY.layers, ops, strict=True):
        if op >= 0:
            width = TINY.ops[op].initial_width(layer.in_channels)
            stages[layer.stage].append({"op": TINY.ops[op].name, "mid_channels": width})
    return Architecture.model_validate({"space": TINY.name, "stages": stages})


def brute_force(supernet: Supernet, target_ms: float) -> tuple[float, list[int]] | None:
    """Over all choices of what is kept: the highest log-probability, with its operators."""
    alpha, num_layers = supernet.log_alpha().tolist(), len(TINY.layers)
    best: tuple[float, list[int]] | None = None
    for is_kept in itertools.product([True, False], repeat=num_layers):
        ops = [
            max(range(len(TINY.ops)), key=row.__getitem__) if kept else -1
            for row, kept in zip(alpha, is_kept, strict=True)
        ]
        log_probability = log_probability_of(supernet, ops)
        if log_probability == -math.inf or (best is not None and log_probability <= best[0]):
            continue
        low_ms, high_ms = elasticity_scaling(architecture_of(ops), TABLE, target_ms).reachable_ms
        if low_ms <= target_ms <= high_ms:
            best = log_probability, ops
    return best


def log_probability_of(supernet: Supernet, ops: list[int]) -> float:
    alpha, beta = supernet.log_alpha().tolist(), supernet.log_beta().tolist()
    if supernet.depth == "skip":
        return sum(row[SKIP if op < 0 else op] for row, op in zip(alpha, ops, strict=True))
    total = 0.0
    for stage in range(len(TINY.stages)):
        kept = [op >= 0 for op, layer in zip(ops, TINY.layers, strict=True) if layer.stage == stage]
        if kept != sorted(kept, reverse=True):
            return -math.inf
        total += beta[stage][sum(kept)]
    return total


@DEPTHS
def test_the_most_probable_network_in_reach_is_the_one_that_enumeration_finds(depth: Depth) -> None:
    num_moved = 0
    for seed in range(4):
        supernet = make_supernet(TINY, depth, seed=seed)
        most_probable = supernet.derived_ops()
        for target_ms in (2.15, 2.25, 2.35, 2.45, 2.6):
            expected = brute_force(supernet, target_ms)
            log_beta_SD = supernet.log_beta() if depth == "sink" else None
            found = most_probable_in_reach(TINY, supernet.log_alpha(), log_beta_SD, TABLE, target_ms)
            if expected is None:
                assert found is None
                continue
            assert found is not None
            assert log_probability_of(supernet, found) == pytest.approx(expected[0])
            assert elasticity_scaling(architecture_of(found), TABLE, target_ms).is_feasible
            num_moved += found != most_probable
    assert num_moved > 3


@DEPTHS
def test_a_target_that_the_most_probable_network_can_meet_changes_nothing(depth: Depth) -> None:
    for seed in range(4):
        supernet = make_supernet(TINY, depth, seed=seed)
        before = supernet.derive()
        supernet.in_reach_of = TABLE, TABLE.latency_ms(before)
        assert supernet.derive() == before


def test_a_target_out_of_every_reach_leaves_the_most_probable_network() -> None:
    supernet = make_supernet(TINY, "sink")
    before = supernet.derive()
    supernet.in_reach_of = TABLE, 1e6
    assert supernet.derive() == before


@DEPTHS
@pytest.mark.parametrize("elasticity", [True, False])
def test_a_search_derives_in_reach_in_its_last_epoch_and_only_if_it_scales(
    depth: Depth, elasticity: bool
) -> None:
    config = make_config(
        depth=depth, elasticity=elasticity, derivation="in_reach", num_epochs=3, num_warmup_epochs=1
    )
    run = Search(config, TABLE)
    is_constrained = []
    for _ in range(3):
        record = run.run_epoch()
        is_constrained.append(run.method.supernet.in_reach_of is not None)
    assert is_constrained == [False, False, elasticity]
    if elasticity:
        assert abs(record.metrics["latency_error_percent"]) < 1
        assert record.architecture == run.method.supernet.derive()
