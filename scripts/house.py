"""Print the rooms of the packages and the arrows between them, read from import statements."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("nas", "experiments", "analysis", "tune_configs")


@dataclass(frozen=True)
class House:
    """Modules, and what each of them imports when it is imported itself.

    Attributes:
        files: of each module, by its dotted name.
        imports: modules of the packages that each module imports at its start.
    """

    files: dict[str, Path]
    imports: dict[str, set[str]]

    @classmethod
    def read(cls, root: Path = ROOT) -> "House":
        """Reads the source below a folder."""
        files = {}
        for package in PACKAGES:
            for path in sorted((root / package).rglob("*.py")):
                parts = path.relative_to(root).with_suffix("").parts
                files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
        graph = {}
        for module, path in files.items():
            targets = (_module_of(name, files) for name in imported_names(path, at_start=True))
            graph[module] = {target for target in targets if target and target != module}
        return cls(files, graph)

    def rooms(self) -> dict[str, list[str]]:
        """The modules of each room, without the room's own `__init__`."""
        rooms: dict[str, list[str]] = {}
        for module, path in self.files.items():
            if path.name != "__init__.py":
                rooms.setdefault(self.room_of(module), []).append(module)
        return rooms

    def arrows(self) -> dict[str, set[str]]:
        """The rooms that each room imports from.

        A package's `__init__`, which may hold the room's registry, counts apart from the room: the config
        must know the names of search methods before it can import any of them.
        """
        arrows: dict[str, set[str]] = {room: set() for room in self.rooms()}
        for module, targets in self.imports.items():
            others = {self.room_of(target) for target in targets} - {self.room_of(module)}
            if others or not self._is_registry(module):
                arrows.setdefault(self.room_of(module), set()).update(others)
        return arrows

    def room_of(self, module: str) -> str:
        """The folder that a module lies in, dotted: `nas.space` of `nas.space.architecture`."""
        return f"{module}.__init__" if self._is_registry(module) else module.rpartition(".")[0]

    def _is_registry(self, module: str) -> bool:
        return self.files[module].name == "__init__.py"


def imported_names(path: Path, *, at_start: bool = False) -> Iterator[str]:
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


def _module_of(name: str, files: dict[str, Path]) -> str | None:
    """The module behind a dotted name: itself, or the one that it is taken from."""
    if name in files:
        return name
    parent = name.rpartition(".")[0]
    return parent if parent in files else None


def main() -> None:
    """Prints each room, its modules, and the rooms below it, from the ground up."""
    house = House.read()
    arrows = house.arrows()
    rooms = house.rooms()
    for room in TopologicalSorter(arrows).static_order():
        names = ", ".join(module.rpartition(".")[2] for module in rooms.get(room, ()))
        below = ", ".join(sorted(arrows.get(room, ()))) or "nothing"
        print(f"{room}\n    {names or '(the __init__ of the room: its registry)'}\n    -> {below}")


if __name__ == "__main__":
    main()
