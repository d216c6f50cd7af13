"""Tracking stores that cannot be used: a wrong address, a damaged or locked file, another version."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from experiments.tracking.tracker import Tracker
from tests.hostile.command import Command
from tests.support.study_files import BASE, make_study

ADDRESSES = (
    "localhost:5000",
    "127.0.0.1:5000",
    "./mlruns",
    "file:///nowhere/mlruns",
    "s3://bucket/x",
    "uc:databricks",
    "postgresql+nothing://me:hidden@host/db",
    "mysql+pymysql://me:hidden@host/db",
    "sqlite:////proc/nope/x.db",
    "sqlite://host/x.db",
    "sqlite:///spec.yaml",
    "http://me:hidden@127.0.0.1:9",
)
RUN = "run:0123456789abcdef0123456789abcdef"
READERS = (
    ("figures", "some", "--out", "out"),
    ("report", "some", "--out", "out"),
    ("health", "some", "--out", "out"),
    ("compare", "a", "b", "--out", "out"),
    ("train", RUN, "--out", "out"),
    ("train", "experiment:some", "--out", "out"),
    ("export", RUN, "--out", "out"),
)
WRITERS = (
    ("launch", "spec.yaml", "--out", "out"),
    ("launch", "spec.yaml", "--out", "out", "--dry-run"),
    ("launch", "study.yaml", "--out", "out"),
)
STATUS = ("launch", "spec.yaml", "--out", "out", "--status")


@pytest.fixture(autouse=True)
def _specs(command: Command) -> None:
    for name, content in (
        ("spec.yaml", {"experiment": "some", "base": BASE, "grid": {"seed": [0]}}),
        ("study.yaml", make_study()),
    ):
        Path(name).write_text(yaml.safe_dump(content))


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_wrong_address_is_refused_in_one_line_before_any_work(
    address: str, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    # A server may come back: `--status` then shows what the folder knows.
    statuses = () if address.startswith("http") else (STATUS,)
    for arguments in (*READERS, *WRITERS, *statuses):
        line = command.refuses(*arguments)
        assert "hidden" not in line
        assert "MLFLOW_TRACKING_URI" in line or "--out" in line


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a store; making its tables takes seconds."""
    folder = tmp_path_factory.mktemp("sound")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        Tracker("some", folder)
    return folder / "mlflow.db"


@contextmanager
def half(path: Path) -> Iterator[None]:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    yield


@contextmanager
def of_another_version(path: Path) -> Iterator[None]:
    with sqlite3.connect(path) as database:
        database.execute("UPDATE alembic_version SET version_num = 'abcdef123456'")
    database.close()
    yield


@contextmanager
def locked(path: Path) -> Iterator[None]:
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        database.close()


@contextmanager
def of_another_kind(path: Path) -> Iterator[None]:
    path.write_bytes(b"no database " * 1000)
    yield


@pytest.mark.parametrize("state", [half, of_another_version, of_another_kind])
def test_a_store_in_a_wrong_state_is_refused_in_one_line(state, command: Command, sound: Path) -> None:
    Path("out").mkdir()
    shutil.copyfile(sound, "out/mlflow.db")
    with state(Path("out/mlflow.db")):
        for arguments in (*READERS, *WRITERS, STATUS):
            assert "out/mlflow.db" in command.refuses(*arguments)


def test_a_locked_store_is_refused_in_one_line(command: Command, sound: Path) -> None:
    """For two commands only, since SQLite waits for seconds."""
    Path("out").mkdir()
    shutil.copyfile(sound, "out/mlflow.db")
    with locked(Path("out/mlflow.db")):
        for arguments in (READERS[0], STATUS):
            assert "out/mlflow.db" in command.refuses(*arguments)
