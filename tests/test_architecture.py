"""The rooms of the packages and the arrows between them, read from the import statements.

`make house` prints the same picture.
"""

import ast
import importlib
import subprocess
import sys
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from itertools import takewhile
from pathlib import Path

import pytest

from scripts.house import ROOT, House, imported_names

HOUSE = House.read()

OUTSIDE_NAS = ("ray", "mlflow", "optuna", "yaml", "click", "rich", "pandas", "matplotlib", "jinja2")
"""Libraries that the method does not know."""

ONLY_IN_EXPERIMENTS = ("ray", "optuna", "yaml")

FLOORS_OF_NAS = (
    {"nas.foundation"},
    {"nas.space", "nas.data"},
    {"nas.latency"},
    {"nas.supernet"},
    {"nas.supernet.compiled", "nas"},
    {"nas.search", "nas.training"},
    {"nas.search.methods", "nas.oracle"},
)
"""Rooms of the method from the ground up; `nas` itself is the config. A room imports from floors below it."""

FLOORS_OF_EXPERIMENTS = (
    {"experiments"},
    {"experiments.places"},
    {"experiments.cells"},
    {"experiments.tracking"},
    {"experiments.products", "experiments.specs"},
    {"experiments.launching", "experiments.templates"},
    {"experiments.studies"},
    {
        *("experiments.cli.planning", "experiments.cli.launches"),
        *("experiments.cli.results", "experiments.cli.networks"),
    },
    {"experiments.cli"},
)

FLOORS_OF_ANALYSIS = (
    {"analysis.reading"},
    {"analysis.writing"},
    {"analysis.measures"},
    {"analysis.verdicts"},
    {"analysis.figures.ink"},
    {"analysis.tables"},
    {"analysis.figures"},
    {"analysis.report", "analysis.bundles"},
)

OF_METHOD_FOR_ANALYSIS = (
    *("nas.foundation", "nas.space", "nas.latency"),
    *("nas.search.records", "nas.search.health", "nas.oracle.space_oracle"),
    *("nas.config", "nas.search.search_identity", "nas.search.recomputation"),
)
"""What analysis may use of the method: what explains records, and the truth about small spaces.

The last line is what bundles are verified with.
"""

MAX_MODULES = 15
"""Modules in a room: a reader takes in about a dozen at a glance."""


def package_of(name: str) -> str:
    return name.split(".")[0]


def offenders(package: str, *forbidden: str) -> list[str]:
    return sorted(
        f"{module} imports {name}"
        for module, path in HOUSE.files.items()
        if package_of(module) == package
        for name in imported_names(path)
        if any(name == each or name.startswith(f"{each}.") for each in forbidden)
    )


def test_the_method_knows_neither_experiments_nor_analysis_nor_their_libraries() -> None:
    assert not offenders("nas", "experiments", "analysis", "tune_configs", *OUTSIDE_NAS)


def test_the_method_imports_without_them(tmp_path: Path) -> None:
    block = "".join(f"sys.modules[{name!r}] = None\n" for name in OUTSIDE_NAS)
    names = [name for name in HOUSE.files if package_of(name) == "nas"]
    script = f"import sys\n{block}" + "".join(f"import {name}\n" for name in names)
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)


def test_analysis_reads_records_and_never_runs_experiments() -> None:
    assert not offenders("analysis", "experiments", "tune_configs", *ONLY_IN_EXPERIMENTS)


def test_analysis_uses_of_the_method_only_what_explains_records() -> None:
    used = {
        name
        for module, path in HOUSE.files.items()
        if package_of(module) == "analysis"
        for name in imported_names(path)
        if package_of(name) == "nas"
    }
    allowed = tuple(f"{room}." for room in OF_METHOD_FOR_ANALYSIS)
    assert not [name for name in sorted(used) if not f"{name}.".startswith(allowed)]


def test_only_the_command_line_joins_experiments_and_analysis() -> None:
    joined = {line.split(" imports ")[0] for line in offenders("experiments", "analysis")}
    assert not [module for module in sorted(joined) if not module.startswith("experiments.cli.")]


@pytest.mark.parametrize("floors", [FLOORS_OF_NAS, FLOORS_OF_EXPERIMENTS, FLOORS_OF_ANALYSIS])
def test_rooms_import_from_the_floors_below_them(floors: tuple[set[str], ...]) -> None:
    floor_of = {room: floor for floor, rooms in enumerate(floors) for room in rooms}
    package = package_of(next(iter(floors[0])))
    rooms = [room for room in HOUSE.rooms() if package_of(room) == package and not room.endswith("__init__")]
    assert sorted(rooms) == sorted(floor_of), "list the room on its floor"
    for room, below in HOUSE.arrows().items():
        for other in below:
            if room in floor_of and other in floor_of:
                assert floor_of[other] < floor_of[room], f"{room} imports from {other}"


def test_no_module_imports_itself_by_way_of_others() -> None:
    try:
        list(TopologicalSorter(HOUSE.imports).static_order())
        list(TopologicalSorter(HOUSE.arrows()).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_no_room_has_more_modules_than_a_reader_takes_in() -> None:
    assert not {room: len(names) for room, names in HOUSE.rooms().items() if len(names) > MAX_MODULES}


def test_no_two_modules_share_a_name() -> None:
    names = Counter(
        module.rpartition(".")[2] for module, path in HOUSE.files.items() if path.name != "__init__.py"
    )
    assert not [name for name, count in names.items() if count > 1]


def test_no_two_public_classes_share_a_name() -> None:
    names = Counter(
        node.name
        for path in HOUSE.files.values()
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert not [name for name, count in names.items() if count > 1]


def test_every_module_says_in_its_first_line_what_it_is() -> None:
    for module, path in HOUSE.files.items():
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        first = list(takewhile(str.strip, (docstring or "").splitlines()))
        assert first, module
        assert first[0].rstrip().endswith((".", ",", ":", ";")) or len(first) > 1, module


def test_launches_start_without_waiting_for_torchvision() -> None:
    reached: set[str] = set()
    pending = ["experiments.launching.grid_launch", "experiments.cells.trial"]
    while pending:
        module = pending.pop()
        if module not in reached:
            reached.add(module)
            pending += HOUSE.imports[module]
    assert not [
        f"{module} imports {name}"
        for module in sorted(reached)
        for name in imported_names(HOUSE.files[module], at_start=True)
        if package_of(name) == "torchvision"
    ]


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_benchmarks_import_what_is_there(path: Path) -> None:
    for name in imported_names(path):
        module, _, attribute = name.rpartition(".")
        if package_of(name) in ("nas", "experiments", "analysis", "benchmarks", "tests") and module:
            try:
                importlib.import_module(name)
            except ImportError:
                assert hasattr(importlib.import_module(module), attribute), name
