"""Which search is which: hashes of all that determines a result, and of nothing else."""

import ast
import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

import nas


def fingerprint(content: Mapping[str, Any]) -> str:
    """SHA-256 of what can be written as JSON, in hexadecimal; the order of keys is irrelevant."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()


@lru_cache
def code_version(entry: str = "search.py") -> str:
    """Hash of torch's version and of the source that runs, comments and docstrings aside.

    Args:
        entry: file of `nas` where it begins: a search or, `train.py`, a training.
    """
    package = Path(nas.__file__).parent
    found: dict[str, str] = {}
    pending = [package / entry]
    while pending:
        path = pending.pop()
        name = str(path.relative_to(package))
        if name not in found and path.is_file():
            tree = ast.parse(path.read_text(encoding="utf-8"))
            pending += _imported_files(tree, package)
            found[name] = ast.dump(_without_docstrings(tree))
    return fingerprint({"torch": torch.__version__, "source": found})


def _imported_files(tree: ast.Module, package: Path) -> list[Path]:
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    files = [package.parent.joinpath(*name.split(".")) for name in names if name.startswith("nas.")]
    return [candidate for file in files for candidate in (file.with_suffix(".py"), file / "__init__.py")]


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [statement for statement in body if not _is_bare_string(statement)]  # type: ignore[attr-defined]
    return tree


def _is_bare_string(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
