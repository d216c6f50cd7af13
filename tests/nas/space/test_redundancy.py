"""Counts of encodings and networks, against enumerations of a space small enough to enumerate."""

from collections import Counter
from dataclasses import replace
from itertools import product
from math import prod

import pytest

from nas.space.macro_space import Space, StageSpec, get_space
from nas.space.redundancy import first_of_equals, has_other_encodings, num_equal_encodings
from tests.support.tiny import OPS, TINY

NUM_OPS = len(OPS)
IDENTITY = NUM_OPS

FIRST_FIXED = replace(TINY, stages=(StageSpec(6, 3, 2, "relu"), StageSpec(8, 1, 1, "swish")))
"""9 * 9 * 8 * 8 encodings: the first layer of each stage cannot be skipped."""

ALL_SKIPPABLE = replace(TINY, stages=(StageSpec(4, 3, 1, "relu"), StageSpec(6, 1, 2, "swish")))
"""A stage that can be left out as a whole."""

SPACES = pytest.mark.parametrize("space", [FIRST_FIXED, ALL_SKIPPABLE], ids=["first_fixed", "all_skippable"])


def skip_encodings(space: Space) -> list[tuple[int, ...]]:
    """Every choice of a candidate in each layer, identity where it keeps the shape."""
    return list(product(*(range(NUM_OPS + layer.keeps_shape) for layer in space.layers)))


def network_of(space: Space, encoding: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """The network that an encoding derives: each stage's operators, the identities dropped."""
    return tuple(
        tuple(
            op
            for layer, op in zip(space.layers, encoding, strict=True)
            if layer.stage == stage and op != IDENTITY
        )
        for stage in range(len(space.stages))
    )


def sink_networks(space: Space) -> list[tuple[tuple[int, ...], ...]]:
    """The network of every sink encoding: a depth of each stage, an operator of each kept layer."""
    stages = []
    for index, stage in enumerate(space.stages):
        depths = range(space.min_depth(index), stage.num_layers + 1)
        stages.append([ops for depth in depths for ops in product(range(NUM_OPS), repeat=depth)])
    return list(product(*stages))


@SPACES
def test_skip_encodings_and_networks_are_those_of_the_enumeration(space: Space) -> None:
    encodings = skip_encodings(space)
    assert space.num_skip_encodings() == len(encodings)
    assert space.num_networks() == len({network_of(space, encoding) for encoding in encodings})


@SPACES
def test_sink_encodings_are_all_distinct_and_give_the_networks_of_the_skip_space(space: Space) -> None:
    networks = sink_networks(space)
    assert space.num_sink_encodings() == len(networks) == len(set(networks))
    assert set(networks) == {network_of(space, encoding) for encoding in skip_encodings(space)}


@SPACES
def test_an_encoding_has_as_many_equals_as_the_enumeration_finds(space: Space) -> None:
    encodings = skip_encodings(space)
    num_equal = Counter(network_of(space, encoding) for encoding in encodings)
    for encoding in encodings:
        derived_ops = [-1 if op == IDENTITY else op for op in encoding]
        expected = num_equal[network_of(space, encoding)]
        assert num_equal_encodings(space, derived_ops) == expected
        assert has_other_encodings(space, derived_ops) == (expected > 1)


@SPACES
def test_one_encoding_stands_for_all_of_its_network(space: Space) -> None:
    firsts = {}
    for encoding in skip_encodings(space):
        derived_ops = [-1 if op == IDENTITY else op for op in encoding]
        first = first_of_equals(space, derived_ops)
        assert firsts.setdefault(network_of(space, encoding), first) == first
        assert network_of(space, tuple(IDENTITY if op == -1 else op for op in first)) == network_of(
            space, encoding
        )
        assert first_of_equals(space, first) == first
    assert len(set(firsts.values())) == space.num_networks()


def test_counts_of_paper() -> None:
    paper = get_space("paper")
    assert len(paper.layers) == 18
    assert prod(stage.num_layers for stage in paper.stages) == 384
    # Stages of 1 to n layers: sum over depths d of 8^d.
    sink = prod(sum(8**depth for depth in range(1, n + 1)) for n in (2, 3, 4, 4, 4, 1))
    assert paper.num_sink_encodings() == paper.num_networks() == sink
    # The first layer of each of the 6 stages cannot be skipped; the other 12 can.
    assert paper.num_skip_encodings() == 8**6 * 9**12
