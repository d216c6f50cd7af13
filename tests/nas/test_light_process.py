"""What a search or a training leaves out of its process, in memory and in time to its first epoch."""

import subprocess
import sys

import pytest

SEARCH = """
from nas.latency.table import reachable_interval_ms
from nas.search.search import run_search
from tests.support.synthetic import make_config, make_table

table = make_table()
target_ms = sum(reachable_interval_ms(table)) / 2
config = make_config(
    table, target_latency_ms=target_ms, max_train_images=200, num_epochs=2, num_warmup_epochs=1
)
assert len(list(run_search(config, table=table))) == 2
"""
TRAINING = """
from nas.config import TrainConfig
from nas.training.training import run_training

config = TrainConfig(
    architecture="tf-nas-a", max_train_images=40, num_epochs=1, num_warmup_epochs=0, batch_size=20
)
assert len(list(run_training(config))) == 1
"""


@pytest.mark.parametrize("work", [SEARCH, TRAINING], ids=["search", "training"])
def test_torch_imports_neither_its_compiler_nor_sympy_for_a_step(work: str):
    script = f"import sys\n{work}\nassert not {{'torch._dynamo', 'sympy'}} & sys.modules.keys()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
