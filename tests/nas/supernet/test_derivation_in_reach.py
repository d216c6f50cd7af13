"""Derivation in reach: the most probable network that widths can bring to the target, by brute force."""

import itertools
import math
from dataclasses import replace

import pytest

from nas.config import Depth
from nas.latency.elasticity import ScalingReport, elasticity_scaling
from nas.search.search import Search
from nas.space.architecture import Architecture
from nas.supernet.derivation import networks_in_reach
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


def brute_force(supernet: Supernet, target_ms: float) -> list[tuple[float, list[int]]]:
    """All choices of what is kept whose widths allow the target, with their log-probabilities, in order."""
    alpha = supernet.log_alpha().tolist()
    found = []
    for is_kept in itertools.product([True, False], repeat=len(TINY.layers)):
        ops = [
            max(range(len(TINY.ops)), key=row.__getitem__) if kept else -1
            for row, kept in zip(alpha, is_kept, strict=True)
        ]
        log_probability = log_probability_of(supernet, ops)
        if log_probability == -math.inf:
            continue
        low_ms, high_ms = elasticity_scaling(architecture_of(ops), TABLE, target_ms).reachable_ms
        if low_ms <= target_ms <= high_ms:
            found.append((log_probability, ops))
    return sorted(found, reverse=True)


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


def find_in_reach(supernet: Supernet, target_ms: float) -> list[list[int]]:
    log_beta_SD = supernet.log_beta() if supernet.depth == "sink" else None
    return list(networks_in_reach(TINY, supernet.log_alpha(), log_beta_SD, TABLE, target_ms))


@DEPTHS
def test_networks_in_reach_are_those_of_enumeration_in_the_order_of_their_probability(depth: Depth) -> None:
    num_found = 0
    for seed in range(4):
        supernet = make_supernet(TINY, depth, seed=seed)
        for target_ms in (2.15, 2.25, 2.35, 2.45, 2.6):
            expected = brute_force(supernet, target_ms)
            found = find_in_reach(supernet, target_ms)
            assert sorted(found) == sorted(ops for _, ops in expected)
            assert [log_probability_of(supernet, ops) for ops in found] == pytest.approx(
                [log_probability for log_probability, _ in expected]
            )
            num_found += len(found)
    assert num_found > 40


@DEPTHS
def test_the_most_probable_network_comes_first_where_it_can_meet_the_target(depth: Depth) -> None:
    for seed in range(4):
        supernet = make_supernet(TINY, depth, seed=seed)
        first = find_in_reach(supernet, TABLE.latency_ms(supernet.derive()))[0]
        assert first == supernet.derived_ops()


def test_nothing_is_in_reach_of_a_target_beyond_all_networks() -> None:
    assert find_in_reach(make_supernet(TINY, "sink"), 1e6) == []


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
        is_constrained.append(run.method.supernet.kept_ops is not None)
    assert is_constrained == [False, False, elasticity]
    if elasticity:
        assert abs(record.metrics["latency_error_percent"]) < 1
        assert record.architecture == run.method.supernet.derive()


def test_a_network_that_steps_of_scaling_cannot_bring_to_the_target_is_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = make_config(derivation="in_reach", num_epochs=2, num_warmup_epochs=1)
    tried = []

    def miss_twice(report: ScalingReport, target_ms: float) -> bool:
        tried.append([len(stage) for stage in report.architecture.stages])
        return len(tried) > 2

    monkeypatch.setattr(ScalingReport, "meets", miss_twice)
    search = Search(config, TABLE)
    for _ in range(2):
        record = search.run_epoch()
    in_order = find_in_reach(search.method.supernet, config.target_latency_ms)
    assert len(tried) == 3
    assert search.method.supernet.kept_ops == in_order[2]
    assert [len(stage) for stage in record.architecture.stages] == tried[2]


@pytest.mark.parametrize("end", ["lower", "upper"])
def test_a_network_that_meets_the_target_with_every_width_at_a_bound_is_passed_over(end: str) -> None:
    """A target that the most probable network meets exactly at one end of what its widths allow."""
    config = make_config(derivation="in_reach", num_epochs=2, num_warmup_epochs=1)
    probe = Search(config.model_copy(update={"derivation": "argmax"}), TABLE)
    for _ in range(2):
        probe.run_epoch()
    supernet = probe.method.supernet
    low_ms, high_ms = elasticity_scaling(supernet.derive(), TABLE, config.target_latency_ms).reachable_ms
    target_ms = low_ms if end == "lower" else high_ms
    first = elasticity_scaling(supernet.derive(), TABLE, target_ms)
    assert first.is_at_bound
    assert first.meets(target_ms)
    probe.method.task = replace(
        probe.method.task, config=config.model_copy(update={"target_latency_ms": target_ms})
    )
    before = supernet.derived_ops()
    probe.method._derive_in_reach()
    assert supernet.derived_ops() != before
    after = elasticity_scaling(supernet.derive(), TABLE, target_ms)
    assert after.meets(target_ms)
    assert not after.is_at_bound


def test_a_target_that_no_network_meets_leaves_the_most_probable_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScalingReport, "meets", lambda *_: False)
    search = Search(make_config(derivation="in_reach", num_epochs=2, num_warmup_epochs=1), TABLE)
    for _ in range(2):
        search.run_epoch()
    assert search.method.supernet.kept_ops is None
