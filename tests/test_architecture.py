"""The arrows between the packages, read from the import statements."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("nas", "experiments", "analysis", "tune_configs")

OUTSIDE_NAS = ("ray", "mlflow", "optuna", "yaml", "click", "rich", "pandas", "matplotlib", "jinja2")
"""What the method knows nothing of."""

ONLY_IN_EXPERIMENTS = ("ray", "optuna", "yaml")

NAS_FOR_ANALYSIS = (
    "nas.architecture",
    "nas.errors",
    "nas.latency",
    "nas.ops",
    "nas.records",
    "nas.redundancy",
    "nas.space",
    "nas.validation",
)
"""Rooms of `nas` that say what records mean; no others may be looked into from `analysis`."""

INSIDE_NAS = (
    ("errors", "validation"),
    ("config", "ops", "space"),
    ("architecture", "records", "profile", "device"),
    ("latency", "network", "augment"),
    ("elasticity", "supernet", "sampling", "objective", "redundancy", "kernels"),
    ("search", "search_state", "train"),
)
"""Rooms of `nas` from the ground up: none imports from a floor above its own. Others are free."""


def modules() -> dict[str, Path]:
    """Every module of the packages, by its dotted name."""
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(path: Path, *, at_start: bool = False) -> Iterator[str]:
    """Dotted names that a file imports, a name taken from a module counted as `module.name`.

    Args:
        at_start: only what runs when the module is imported, nothing inside functions.
    """
    pending: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif not (at_start and _runs_later(node)):
            pending += ast.iter_child_nodes(node)


def _runs_later(node: ast.AST) -> bool:
    """Whether importing a module does not run the node: a function's body, what the type checker reads."""
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def package_of(name: str) -> str:
    return name.split(".")[0]


def offenders(package: str, *forbidden: str) -> list[str]:
    return sorted(
        f"{module} imports {name}"
        for module, path in MODULES.items()
        if package_of(module) == package
        for name in imports(path)
        if any(name == each or name.startswith(f"{each}.") for each in forbidden)
    )


def test_the_method_knows_neither_experiments_nor_analysis_nor_their_libraries() -> None:
    assert not offenders("nas", "experiments", "analysis", "tune_configs", *OUTSIDE_NAS)


def test_the_method_imports_without_them(tmp_path: Path) -> None:
    block = "".join(f"sys.modules[{name!r}] = None\n" for name in OUTSIDE_NAS)
    names = [name for name in MODULES if package_of(name) == "nas"]
    script = f"import sys\n{block}" + "".join(f"import {name}\n" for name in names)
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)


def test_analysis_reads_records_and_never_runs_experiments() -> None:
    assert not offenders("analysis", "experiments", "tune_configs", *ONLY_IN_EXPERIMENTS)


def test_analysis_knows_of_the_method_only_what_records_mean() -> None:
    looked_into = {
        name
        for module, path in MODULES.items()
        if package_of(module) == "analysis"
        for name in imports(path)
        if package_of(name) == "nas"
    }
    allowed = tuple(f"{room}." for room in NAS_FOR_ANALYSIS)
    assert not [name for name in sorted(looked_into) if not f"{name}.".startswith(allowed)]


def test_only_the_command_line_joins_experiments_and_analysis() -> None:
    joined = {line.split(" imports ")[0] for line in offenders("experiments", "analysis")}
    doors = ("experiments.cli", "experiments.commands.")
    assert not [module for module in sorted(joined) if not module.startswith(doors)]


def dependencies() -> dict[str, set[str]]:
    """Modules of the packages that each module imports when it is imported itself."""
    graph: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        targets = set()
        for name in imports(path, at_start=True):
            # `from package import thing`: a module, or something that the package's `__init__` has.
            target = name if name in MODULES else name.rpartition(".")[0]
            if target in MODULES and target != module:
                targets.add(target)
        graph[module] = targets
    return graph


def test_searches_start_without_waiting_for_torchvision() -> None:
    graph = dependencies()
    reached, pending = set(), ["experiments.launch", "experiments.trial"]
    while pending:
        module = pending.pop()
        if module not in reached:
            reached.add(module)
            pending += graph[module]
    assert not [
        f"{module} imports {name}"
        for module in sorted(reached)
        for name in imports(MODULES[module], at_start=True)
        if package_of(name) == "torchvision"
    ]


def test_no_module_imports_itself_by_way_of_others() -> None:
    try:
        list(TopologicalSorter(dependencies()).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_rooms_of_the_method_stand_on_each_other() -> None:
    floor_of = {room: floor for floor, rooms in enumerate(INSIDE_NAS) for room in rooms}

    def floor(module: str) -> int | None:
        return floor_of.get(module.split(".")[1]) if module.startswith("nas.") else None

    for module, targets in dependencies().items():
        for target in targets:
            above, below = floor(module), floor(target)
            assert above is None or below is None or below <= above, f"{module} imports {target}"


def test_every_package_is_listed_for_installation() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    folders = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    assert set(pyproject["tool"]["setuptools"]["packages"]) == folders
