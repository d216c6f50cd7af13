"""What makes all tests quicker: the order of files, stores that do not wait, and fewer objects to collect."""

import gc
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

LONGEST = (
    *("experiments/cli/launches/test_demo_command.py", "experiments/specs/test_training_grid.py"),
    *("experiments/launching/test_launch.py", "experiments/studies/test_study_launch.py"),
    *("experiments/cells/test_worker_reuse.py", "experiments/launching/test_search_methods.py"),
    *("nas/supernet/test_supernet_against_reference.py", "nas/supernet/test_compiled_block.py"),
)
"""Files that take longest; begun last, one of them would keep one process busy when the others are done."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the files that take longest first."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


def pytest_collection_finish() -> None:
    """Libraries are millions of objects that the garbage collector would visit at each of its runs."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _quick_stores() -> Iterator[None]:
    """SQLite stores that do not wait for the disk: that guards against power cuts alone."""
    if "mlflow" not in sys.modules:  # no test of this session asks for it
        yield
        return
    from sqlalchemy import Engine, event

    event.listen(Engine, "connect", _do_not_wait_for_the_disk)
    yield
    event.remove(Engine, "connect", _do_not_wait_for_the_disk)


def _do_not_wait_for_the_disk(connection: Any, _: object) -> None:
    # A file that is no database: whoever uses it is to find out.
    with suppress(sqlite3.DatabaseError):
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous=OFF")
