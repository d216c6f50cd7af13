"""Networks at their initial widths, by their operators; and all networks of a small space."""

import itertools
from collections.abc import Iterator, Sequence

from nas.foundation.errors import UserError
from nas.space.architecture import Architecture, LayerChoice
from nas.space.macro_space import Space

MAX_NETWORKS = 10_000


def all_architectures(space: Space) -> Iterator[Architecture]:
    """Yields every distinct network: shallow stages first, operators in the order of alpha.

    Raises:
        UserError: the space has more than `MAX_NETWORKS` of them.
    """
    if space.num_networks() > MAX_NETWORKS:
        raise UserError(
            f"space: '{space.name}' has {space.num_networks():.3g} networks, too many to list; use 'nano'"
        )
    choices = [list(_stage_choices(space, stage)) for stage in range(len(space.stages))]
    for ops in itertools.product(*choices):
        yield initial_network(space, list(itertools.chain(*ops)))


def initial_network(space: Space, ops_L: Sequence[int]) -> Architecture:
    """The network of these operators (indices; -1 where a layer is not kept), at its initial widths."""
    stages: list[list[LayerChoice]] = [[] for _ in space.stages]
    for layer, index in zip(space.layers, ops_L, strict=True):
        if index >= 0:
            op = space.ops[index]
            width = op.initial_width(layer.in_channels)
            stages[layer.stage].append(LayerChoice(op=op.name, mid_channels=width))
    return Architecture(space=space.name, stages=tuple(map(tuple, stages)))


def operator_code(architecture: Architecture, space: Space) -> str:
    """The operators of a network in short: their indices, a word per stage, for instance `02-1`."""
    names = space.candidate_names
    return "-".join(
        "".join(str(names.index(choice.op)) for choice in choices) or "x" for choices in architecture.stages
    )


def _stage_choices(space: Space, stage: int) -> Iterator[tuple[int, ...]]:
    num_layers = space.stages[stage].num_layers
    for depth in range(space.min_depth(stage), num_layers + 1):
        for ops in itertools.product(range(len(space.ops)), repeat=depth):
            yield ops + (-1,) * (num_layers - depth)
