"""What makes all tests quicker: stores of MLflow that are copied, and fewer objects to collect."""

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
def _quick_stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """SQLite stores that begin as a copy of an empty one: to make its tables takes a second each time."""
    if "mlflow" not in sys.modules:  # no test of this session asks for it
        yield
        return
    from mlflow.store.db import utils
    from sqlalchemy import Engine, create_engine, event

    make_tables = utils._initialize_tables
    empty = tmp_path_factory.mktemp("empty_store") / "mlflow.db"

    def copy_tables(engine: Engine) -> None:
        if engine.dialect.name != "sqlite":
            make_tables(engine)
            return
        if not empty.exists():
            make_tables(create_engine(f"sqlite:///{empty}"))
        with sqlite3.connect(empty) as source:
            connection = engine.raw_connection()
            source.backup(connection.driver_connection)
            connection.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "_initialize_tables", copy_tables)
        event.listen(Engine, "connect", _do_not_wait_for_the_disk)
        yield
        event.remove(Engine, "connect", _do_not_wait_for_the_disk)


def _do_not_wait_for_the_disk(connection: Any, _: object) -> None:
    """That guards against power cuts; a process that is killed loses nothing."""
    # A file that is no database: whoever uses it is to find out.
    with suppress(sqlite3.DatabaseError):
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous=OFF")
