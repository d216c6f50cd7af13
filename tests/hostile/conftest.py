"""A folder for each test, with a sound lookup table of the smallest space in it."""

from pathlib import Path

import pytest
import torch
from hypothesis import settings

from nas.space.macro_space import get_space
from tests.hostile.command import Command
from tests.support.tiny import make_dense_table

torch.set_num_threads(1)

# The same examples each time, so that a change of the code is what a failure speaks of.
settings.register_profile("suite", derandomize=True, database=None, deadline=None, max_examples=100)
settings.register_profile("explore", deadline=None, max_examples=5000)
settings.load_profile("suite")


@pytest.fixture(scope="session")
def table_text(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("table") / "table.json"
    make_dense_table(get_space("micro")).save(path)
    return path.read_text()


@pytest.fixture
def command(
    tmp_path: Path,
    table_text: str,
    monkeypatch: pytest.MonkeyPatch,
    # Of file descriptors: libraries in C++ write past Python.
    capfd: pytest.CaptureFixture[str],
) -> Command:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    Path("table.json").write_text(table_text)
    return Command(tmp_path, capfd)
