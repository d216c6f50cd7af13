"""The pool of networks to evaluate: distinct, drawn as it says, and at the target."""

import itertools
from collections import Counter

import pytest

from nas.foundation.errors import UserError
from nas.latency.elasticity import elasticity_scaling
from nas.search.candidate_pool import draw_pool
from nas.space.architecture import Architecture, LayerChoice
from nas.space.macro_space import Space
from nas.space.operators import CandidateOp
from tests.support.tiny import TINY, make_config, make_dense_table

TABLE = make_dense_table(TINY)


def ops_of(architecture: Architecture) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(choice.op for choice in choices) for choices in architecture.stages)


def _choice(op: CandidateOp, width: int) -> LayerChoice:
    return LayerChoice(op=op.name, mid_channels=width)


def stage_choices(space: Space, stage: int) -> list[tuple[LayerChoice, ...]]:
    """All networks of a stage, at initial widths."""
    choices = []
    for depth in range(space.min_depth(stage), space.stages[stage].num_layers + 1):
        layers = space.stage_layers(stage)[:depth]
        for ops in itertools.product(space.ops, repeat=depth):
            widths = [op.initial_width(layer.in_channels) for layer, op in zip(layers, ops, strict=True)]
            choices += [tuple(map(_choice, ops, widths))]
    return choices


def test_a_pool_holds_distinct_networks_within_one_percent_of_the_target() -> None:
    config = make_config(method="random", target_latency_ms=2.3)
    pool = draw_pool(config, TABLE)
    assert len(pool) == 1000
    assert len({ops_of(architecture) for architecture in pool}) == 1000
    assert all(abs(TABLE.latency_ms(each) / 2.3 - 1) <= 0.01 for each in pool)
    assert all(elasticity_scaling(each, TABLE, 2.3).is_feasible for each in pool)


def test_without_elasticity_it_holds_initial_widths_at_or_below_the_target() -> None:
    pool = draw_pool(make_config(method="random", elasticity=False, target_latency_ms=2.2), TABLE)
    assert all(TABLE.latency_ms(each) <= 2.2 for each in pool)
    for layer, op, width in itertools.chain.from_iterable(each.layers for each in pool):
        assert width == op.initial_width(layer.in_channels)


def test_a_pool_misses_no_network_of_a_small_space_that_is_fast_enough() -> None:
    target_ms = 2.15
    everything = itertools.product(*(stage_choices(TINY, stage) for stage in range(len(TINY.stages))))
    fast = {
        ops_of(architecture)
        for architecture in (Architecture(space=TINY.name, stages=stages) for stages in everything)
        if TABLE.latency_ms(architecture) <= target_ms
    }
    assert 20 < len(fast) < 1000
    config = make_config(method="random", elasticity=False, target_latency_ms=target_ms, num_evaluations=20)
    assert {ops_of(each) for each in draw_pool(config, TABLE)} == fast


def test_depths_are_drawn_uniformly_where_every_network_is_fast_enough() -> None:
    config = make_config(method="random", elasticity=False, target_latency_ms=1e3)
    depths = Counter(len(each.stages[1]) for each in draw_pool(config, TABLE))
    assert all(count == pytest.approx(1000 / len(depths), rel=0.25) for count in depths.values())


def test_the_seed_and_nothing_else_of_the_search_decides_the_pool() -> None:
    config = make_config(method="random")
    assert draw_pool(config, TABLE) == draw_pool(config.model_copy(update={"weight_lr": 0.3}), TABLE)
    assert draw_pool(config, TABLE) != draw_pool(config.model_copy(update={"seed": 1}), TABLE)


def test_too_few_networks_are_refused() -> None:
    config = make_config(method="random", elasticity=False, target_latency_ms=2.09)
    with pytest.raises(UserError, match="num_evaluations"):
        draw_pool(config, TABLE)
