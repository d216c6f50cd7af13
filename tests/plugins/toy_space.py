"""An operator with a larger kernel, and a small space that has it, identity and one other."""

from dataclasses import replace

from nas.space.macro_space import SPACES, StageSpec, get_space
from nas.space.operators import OPERATORS, CandidateOp

OPERATORS.register("k7_e3", CandidateOp("k7_e3", kernel_size=7, expansion=3, has_se=False))
SPACES.register(
    "two_kernels",
    replace(
        get_space("micro"),
        name="two_kernels",
        stages=(StageSpec(8, 2, 2, "relu"), StageSpec(8, 2, 1, "swish")),
        operators=("k3_e3", "k7_e3", "skip"),
    ),
)
