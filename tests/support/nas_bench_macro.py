"""Files in the format of NAS-Bench-Macro: the public one, if it is beside the project, and synthetic ones."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PUBLIC_FILE = (
    Path(__file__).parents[3] / "shared" / "data" / "nas-bench-macro" / "nas-bench-macro_cifar10.json"
)
"""It is not part of the project: people get it from its authors."""

needs_public_file = pytest.mark.skipif(
    not PUBLIC_FILE.exists(), reason=f"NAS-Bench-Macro is not at {PUBLIC_FILE}"
)

KEYS = ["".join(digits) for digits in product("012", repeat=8)]
STAGES = (slice(0, 2), slice(2, 5), slice(5, 8))


def network_of(key: str) -> str:
    """The key with the identities after each stage's first layer moved to the stage's end."""
    parts = [key[stage] for stage in STAGES]
    return "".join(part[0] + part[1:].replace("0", "").ljust(len(part) - 1, "0") for part in parts)


def synthetic_content(seed: int = 0) -> dict[str, Any]:
    """Accuracies that grow with every operator, layer by layer, and a little noise of each training."""
    rng = np.random.default_rng(seed)
    gains_LO = np.cumsum(rng.uniform(0, 1, (8, 3)), axis=1)
    content: dict[str, Any] = {}
    for key in KEYS:
        name = network_of(key)
        if name not in content:
            mean = 70 + sum(gains_LO[layer, int(digit)] for layer, digit in enumerate(name))
            content[name] = {"test_acc": (mean + rng.normal(0, 0.05, 3)).tolist(), "params": 1}
        content[key] = content[name]
    return content


def write_table(path: Path, content: Any) -> Path:
    """Writes a file as it is, NaN included."""
    path.write_text(json.dumps(content))
    return path
