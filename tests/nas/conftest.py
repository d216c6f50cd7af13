"""The tiny spaces, known by name as the packaged ones are."""

from collections.abc import Iterator

import pytest

from nas import space
from tests.tiny import TINY_SPACES


@pytest.fixture(autouse=True, scope="session")
def _tiny_spaces() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        for tiny in TINY_SPACES:
            monkeypatch.setitem(space._SPACES, tiny.name, tiny)
        yield
