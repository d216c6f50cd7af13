"""All networks of a small space: each once, none missing."""

import itertools
from dataclasses import replace

import pytest

from nas.foundation.errors import UserError
from nas.space.enumeration import all_architectures, operator_code
from nas.space.macro_space import NANO, get_space
from tests.support.tiny import TINY


def test_all_networks_are_listed_once_and_there_are_as_many_as_are_counted() -> None:
    codes = [operator_code(each, NANO) for each in all_architectures(NANO)]
    assert len(codes) == len(set(codes)) == NANO.num_networks() == 400
    stage = [*"0123", *("".join(pair) for pair in itertools.product("0123", repeat=2))]
    assert sorted(codes) == sorted("-".join(pair) for pair in itertools.product(stage, repeat=2))


def test_a_stage_that_may_be_empty_has_a_code_of_its_own() -> None:
    space = replace(TINY, operators=("k3_e3", "k5_e3"))
    assert space.min_depth(0) == 0
    codes = [operator_code(each, space) for each in all_architectures(space)]
    assert len(set(codes)) == len(codes) == space.num_networks()
    # The first stage of the tiny space has two layers at most: 2 + 4 of 7 ways to fill it.
    assert sum(code.startswith("x-") for code in codes) == len(codes) / 7


def test_networks_have_their_initial_widths() -> None:
    for architecture in all_architectures(NANO):
        assert all(width == op.initial_width(layer.in_channels) for layer, op, width in architecture.layers)


def test_a_space_with_too_many_networks_is_refused() -> None:
    with pytest.raises(UserError, match="micro"):
        next(all_architectures(get_space("micro")))
