"""One store for all tests of reading: a grid with gaps, as real ones have."""

from pathlib import Path

import pytest
from synthetic import Store, grid, make_table

from analysis.runs import Experiment, read_experiment


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """`demo`: sampling x depth x seed, with a failed, an unfinished, an older and a foreign run."""
    store = Store(tmp_path_factory.mktemp("launch"), "demo")
    base = {"target_latency_ms": 1.0}
    names = ["sampling", "depth", "seed"]
    store.add_grid(base, grid(sampling=["single", "bi"], depth=["skip", "sink"], seed=[0, 1, 2]))
    failed = {"sampling": "bi", "depth": "skip", "seed": 3}
    store.add(base | failed, names, status="FAILED", failure="loss is not finite in epoch 5")
    store.add(base | {"sampling": "single", "depth": "skip", "seed": 3}, names, status="RUNNING")
    store.add(base | {"sampling": "single", "depth": "skip", "seed": 0}, names, older=True)
    other = {"sampling": "bi", "depth": "sink", "seed": 0}
    store.add(base | other, names, table=make_table(scale=2.0))
    return store


@pytest.fixture(scope="session")
def experiment(store: Store) -> Experiment:
    return read_experiment("demo", store.tracking_uri)


@pytest.fixture
def launch_dir(store: Store, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return store.out_dir
