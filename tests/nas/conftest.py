"""One thread for all tests; and the tiny spaces, known by name as the packaged ones are."""

from collections.abc import Iterator

import pytest
import torch

from nas.space.macro_space import SPACES
from tests.support.tiny import TINY_SPACES

# Threads that wait for each other cost more than they gain at these sizes.
torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _tiny_spaces() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        for tiny in TINY_SPACES:
            monkeypatch.setitem(SPACES._values, tiny.name, tiny)
        yield
