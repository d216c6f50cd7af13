from pathlib import Path

import pytest
import torch

from tests.faults.launches import Site

# As a trial has it.
torch.set_num_threads(1)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)
