"""Fingerprints, and versions of the installed code.

Two things identify a result: what determines it, and a version that people raise when results change
(`RESULTS_VERSION` of searches and of trainings). The source and libraries that produced a result are
recorded with it, but they never invalidate it.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nas.foundation.registry import plugin_versions

_LIBRARIES = ("torch", "torchvision", "numpy", "pillow", "numba")
"""Libraries whose arithmetic affects results."""


def fingerprint(content: Mapping[str, Any]) -> str:
    """SHA-256 of content that JSON can represent, in hexadecimal. The order of keys does not matter."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()


@cache
def code_version() -> str:
    """Hash of the source of `nas`, in hexadecimal."""
    package = Path(__file__).parents[1]
    sources = {path.relative_to(package).as_posix(): path for path in package.rglob("*.py")}
    return fingerprint({name: path.read_text(encoding="utf-8") for name, path in sources.items()})


def library_versions() -> str:
    """Versions of the computing libraries and of plugins, like `torch 2.14.1, numpy 2.3.5`."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return ", ".join(f"{name} {number}" for name, number in (found | plugin_versions()).items())
