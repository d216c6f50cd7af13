"""All networks of a small space, at their initial widths."""

import itertools
from collections.abc import Iterator

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
    for stages in itertools.product(*choices):
        yield Architecture(space=space.name, stages=stages)


def operator_code(architecture: Architecture, space: Space) -> str:
    """The operators of a network in short: their indices, a word per stage, for instance `02-1`."""
    names = space.candidate_names
    return "-".join(
        "".join(str(names.index(choice.op)) for choice in choices) or "x" for choices in architecture.stages
    )


def _stage_choices(space: Space, stage: int) -> Iterator[tuple[LayerChoice, ...]]:
    for depth in range(space.min_depth(stage), space.stages[stage].num_layers + 1):
        layers = space.stage_layers(stage)[:depth]
        for ops in itertools.product(space.ops, repeat=depth):
            yield tuple(
                LayerChoice(op=op.name, mid_channels=op.initial_width(layer.in_channels))
                for layer, op in zip(layers, ops, strict=True)
            )
