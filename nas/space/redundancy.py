"""Architecture redundancy: encodings of the skip space that derive the same network.

Source: TF-NAS, depth level (redundancy of skip as a candidate).
"""

from collections.abc import Sequence
from math import comb

from nas.space.macro_space import Space


def num_equal_encodings(space: Space, derived_ops_L: Sequence[int]) -> int:
    """Number of skip-space encodings that derive the network of an encoding, itself included.

    Within a run of layers of one shape only the order of the kept operators matters, not where
    among them the skipped layers stand.

    Args:
        derived_ops_L: index of each layer's operator, -1 where it is skipped.
    """
    product = 1
    for stage in range(len(space.stages)):
        run = [
            op
            for layer, op in zip(space.layers, derived_ops_L, strict=True)
            if layer.stage == stage and layer.keeps_shape
        ]
        product *= comb(len(run), run.count(-1))
    return product


def has_other_encodings(space: Space, derived_ops_L: Sequence[int]) -> bool:
    """Whether an encoding of the skip space is redundant: others derive the same network."""
    return num_equal_encodings(space, derived_ops_L) > 1


def first_of_equals(space: Space, derived_ops_L: Sequence[int]) -> tuple[int, ...]:
    """The one encoding that stands for all that derive the same network: skipped layers come last.

    Args:
        derived_ops_L: index of each layer's operator, -1 where it is skipped.
    """
    # Stable; the layer that changes its stage's shape stays first.
    layers = sorted(
        zip(space.layers, derived_ops_L, strict=True),
        key=lambda pair: (pair[0].stage, pair[0].keeps_shape, pair[0].keeps_shape and pair[1] == -1),
    )
    return tuple(op for _, op in layers)
