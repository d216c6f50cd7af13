"""Widths: mid channels of the derived network's layers, by epoch.

Shapes: E epochs, L layers.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.search.records import Trajectory
from nas.space.macro_space import get_space


@dataclass(frozen=True)
class WidthCourse:
    """The widths of the derived network.

    Attributes:
        mid_channels_EL: active mid channels of the derived operator; 0 where the layer is not kept.
        expansion_EL: the same over the layer's input channels; NaN where the layer is not kept.
    """

    mid_channels_EL: NDArray[np.int64]
    expansion_EL: NDArray[np.float64]


def measure_widths(trajectory: Trajectory) -> WidthCourse:
    """Widths of the derived network's layers, from the widths of all candidates."""
    derived_EL = trajectory.derived_op_EL
    chosen_EL1 = np.maximum(derived_EL, 0)[..., None]
    mid_EL = np.take_along_axis(trajectory.mid_channels_ELO, chosen_EL1, axis=-1)[..., 0]
    mid_EL = np.where(derived_EL >= 0, mid_EL, 0)
    in_channels_L = np.array([layer.in_channels for layer in get_space(trajectory.space).layers])
    return WidthCourse(mid_EL, np.where(mid_EL > 0, mid_EL / in_channels_L, np.nan))
