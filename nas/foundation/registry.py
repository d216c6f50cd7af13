"""Registries: the named choices of one kind, from tfnas and from plugins.

A plugin is any installed package with an entry point in the group `tfnas.plugins`. The entry point
names a module, and importing that module registers what the package adds. Each process loads plugins
when it first reads a registry.
"""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from importlib.metadata import entry_points
from pkgutil import resolve_name
from typing import Any, Generic, TypeVar

from nas.foundation.errors import UserError

PLUGIN_GROUP = "tfnas.plugins"

Value = TypeVar("Value")

_plugins_are_loaded = False


class UnknownNameError(UserError, KeyError):
    """A registry has no entry of that name."""

    __str__ = UserError.__str__


class Registry(Mapping[str, Value], Generic[Value]):
    """The named choices of one kind, in the order in which they were registered.

    Args:
        noun: what an entry is, for errors; for instance `sampling`.
        entries: the entries of tfnas. Text like `package.module:name` is imported on first lookup.
    """

    def __init__(self, noun: str, entries: Mapping[str, Value | str] | None = None) -> None:
        self._noun = noun
        self._values: dict[str, Any] = dict(entries or {})

    def register(self, name: str, value: Value | str) -> None:
        """Adds an entry.

        Raises:
            ValueError: the name is taken.
        """
        if name in self._values:
            raise ValueError(f"{self._noun}: '{name}' is registered already; choose another name")
        self._values[name] = value

    def __getitem__(self, name: str) -> Value:
        """The entry of that name.

        Raises:
            UnknownNameError: there is no such entry; the message lists the entries.
        """
        load_plugins()
        if name not in self._values:
            raise UnknownNameError(f"{self._noun}: no {self._noun} '{name}'; {self._suggest(name)}")
        value = self._values[name]
        if isinstance(value, str):
            value = self._values[name] = resolve_name(value)
        return value  # type: ignore[no-any-return]

    def __contains__(self, name: object) -> bool:
        load_plugins()
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        load_plugins()
        return iter(self._values)

    def __len__(self) -> int:
        load_plugins()
        return len(self._values)

    def check(self, name: str) -> str:
        """Returns the name if it is registered; for use in config validation.

        Raises:
            ValueError: there is no entry with that name.
        """
        if name not in self:
            raise ValueError(self._suggest(name))
        return name

    def _suggest(self, name: str) -> str:
        close = get_close_matches(name, self, n=1)
        guess = f"did you mean '{close[0]}'? " if close else ""
        return f"{guess}use one of {', '.join(self)}"


def load_plugins() -> None:
    """Imports the modules of all installed plugins, once per process.

    Raises:
        UserError: a module cannot be imported.
    """
    global _plugins_are_loaded
    if _plugins_are_loaded:
        return
    # Set this first, because plugins read registries themselves.
    _plugins_are_loaded = True
    for entry_point in entry_points(group=PLUGIN_GROUP):
        try:
            entry_point.load()
        # A plugin may raise anything while it is imported.
        except Exception as error:
            _plugins_are_loaded = False
            raise UserError(
                f"plugin {entry_point.name} ({entry_point.value}): cannot be imported: "
                f"{type(error).__name__}: {error}; fix or uninstall it"
            ) from error


def plugin_versions() -> dict[str, str]:
    """Version of each installed package with plugins, by package name."""
    packages = [entry_point.dist for entry_point in entry_points(group=PLUGIN_GROUP)]
    return {package.name: package.version for package in packages if package is not None}
