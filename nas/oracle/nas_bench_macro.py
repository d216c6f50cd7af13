"""NAS-Bench-Macro: 3,969 networks, each trained three times on CIFAR-10, from the file of its authors.

A space of 8 layers and 3 operators has 6,561 encodings. Identities after a stage's first layer can be moved
without effect, so there are fewer networks. The file gives all encodings of a network the same
accuracies, and a file that does not is refused.

Source: Su et al., Prioritized Architecture Sampling with Monte-Carlo Tree Search, CVPR 2021
(arXiv 2103.11922).
"""

import re
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from nas.foundation.errors import UserError
from nas.foundation.validation import first_error, read_json
from nas.oracle.tabular import TabularOracle
from nas.space.macro_space import Space, StageSpec
from nas.space.redundancy import first_of_equals

NAS_BENCH_MACRO = Space(
    name="nas_bench_macro",
    resolution=32,
    stem_channels=32,
    stem_stride=1,
    stem_block_channels=32,
    stages=(StageSpec(64, 2, 2, "relu"), StageSpec(128, 3, 2, "relu"), StageSpec(256, 3, 2, "relu")),
    head_channels=1280,
    operators=("skip", "k3_e3", "k5_e6"),
    has_stem_se=False,
)
"""The space as data, for counting. It is no entry of `SPACES`, since it cannot be searched here as it is:
it has no stem block, and in a stage's first layer "identity" is a strided 1x1 convolution.
"""

_DIGITS = "012"
"""A layer's operator in the file: identity, then the operators of the space."""

_REMEDY = "get the file from its authors again"

Percent = Annotated[float, Field(ge=0, le=100)]


class _Trainings(BaseModel):
    """What the file says of a network, without what is not needed."""

    model_config = ConfigDict(strict=True, extra="ignore")

    test_acc: Annotated[tuple[Percent, Percent, Percent], Field(strict=False)]


def load_nas_bench_macro(path: str | Path) -> TabularOracle:
    """Reads the JSON file of NAS-Bench-Macro.

    A network has the code, the name and the accuracies of the encoding whose identities come last. Its code
    is the ordinal of each layer's operator.

    Raises:
        UserError: the file is missing, damaged, incomplete, or of another format.
    """
    content = _read(Path(path))
    keys = ["".join(digits) for digits in product(_DIGITS, repeat=len(NAS_BENCH_MACRO.layers))]
    firsts = [_first_of_equals(key) for key in keys]
    names = sorted(set(firsts))
    index_of = {name: index for index, name in enumerate(names)}
    for key, first in zip(keys, firsts, strict=True):
        if content[key].test_acc != content[first].test_acc:
            raise UserError(
                f"{path}: {key}.test_acc: differs from that of {first}, which is the same network; {_REMEDY}"
            )
    return TabularOracle(
        name="NAS-Bench-Macro",
        names_N=tuple(names),
        codes_NF=_choices(names).astype(np.float64),
        accuracies_NR=np.array([content[name].test_acc for name in names]) / 100,
        choices_EL=_choices(keys),
        network_E=np.array([index_of[first] for first in firsts]),
    )


def _read(path: Path) -> Mapping[str, _Trainings]:
    content = read_json(path, "a NAS-Bench-Macro table")
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a NAS-Bench-Macro table: it is no record of networks; {_REMEDY}")
    num_layers = len(NAS_BENCH_MACRO.layers)
    num_encodings = len(_DIGITS) ** num_layers
    # Before anything else, so that no file can hold more than the networks.
    for key in content:
        if not re.fullmatch(f"[{_DIGITS}]{{{num_layers}}}", key):
            raise UserError(
                f"{path}: {key[:40]!r}: not a network: its name has {num_layers} digits 0, 1 or 2; {_REMEDY}"
            )
    if num_missing := num_encodings - len(content):
        raise UserError(f"{path}: lacks {num_missing:,} of the {num_encodings:,} networks; {_REMEDY}")
    try:
        return TypeAdapter(dict[str, _Trainings]).validate_python(content)
    except ValidationError as error:
        raise UserError(f"{path}: {first_error(error)}; {_REMEDY}") from None


def _first_of_equals(key: str) -> str:
    derived_ops = [int(digit) - 1 for digit in key]
    return "".join(str(op + 1) for op in first_of_equals(NAS_BENCH_MACRO, derived_ops))


def _choices(keys: Sequence[str]) -> NDArray[np.int64]:
    return np.array([[int(digit) for digit in key] for key in keys])
