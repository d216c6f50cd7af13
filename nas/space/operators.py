"""Candidate operators as data; `nas.space.blocks` has the modules that they build.

To add one, register a record in `OPERATORS` and name it among the operators of a space.

Source: TF-NAS, search space (operator and width levels).
"""

from dataclasses import dataclass
from typing import Literal

from nas.foundation.registry import Registry

Activation = Literal["relu", "swish"]

SKIP_OP_NAME = "skip"
"""Name of identity: a candidate in the `skip` depth space, and in spaces that list it as an operator."""


@dataclass(frozen=True)
class CandidateOp:
    """One candidate operator: an MBConv of a kernel size and an expansion, with SE or without.

    All widths are multiples of the block's input channels, so one record serves every layer.
    """

    name: str
    kernel_size: int
    expansion: int
    has_se: bool

    def initial_width(self, in_channels: int) -> int:
        """Mid channels before any elasticity-scaling."""
        return self.expansion * in_channels

    def width_interval(self, in_channels: int) -> tuple[int, int]:
        """Lowest and highest mid channels, both included: two and four thirds of the initial width.

        Every integer in between is allowed.
        """
        initial = self.initial_width(in_channels)
        return -(-2 * initial // 3), 4 * initial // 3

    def se_channels(self, in_channels: int) -> int:
        """Reduced channels of squeeze-and-excitation; 0 where the operator has none."""
        return max(self.initial_width(in_channels) // 3, 1) if self.has_se else 0


def _make_op(kernel_size: int, expansion: int, has_se: bool) -> CandidateOp:
    name = f"k{kernel_size}_e{expansion}{'_se' if has_se else ''}"
    return CandidateOp(name, kernel_size, expansion, has_se)


_PAPER_OPS = [
    _make_op(kernel_size, expansion, has_se)
    for has_se in (False, True)
    for kernel_size in (3, 5)
    for expansion in (3, 6)
]

OPERATORS: Registry[CandidateOp] = Registry("operator", {op.name: op for op in _PAPER_OPS})
"""Every operator that a space may name."""

PAPER_OPERATORS: tuple[str, ...] = tuple(op.name for op in _PAPER_OPS)
"""The paper's, in the order of alpha: k3_e3, k3_e6, k5_e3, k5_e6, then the same with SE."""
