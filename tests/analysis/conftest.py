"""One store for all tests of reading: a grid with gaps, as real ones have."""

import pytest
from click.testing import CliRunner, Result

from analysis.reading.experiment import Experiment
from analysis.reading.experiment_reader import read_experiment
from experiments.cli.results.report_command import report
from tests.support.synthetic import Store, grid, make_table


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """`demo`: sampling x depth x seed, with a failed, an unfinished, an older and a foreign run."""
    store = Store(tmp_path_factory.mktemp("launch"), "demo")
    base = {"target_latency_ms": 1.0}
    names = ["sampling", "depth", "seed"]
    store.add_grid(base, grid(sampling=["single", "bi_random"], depth=["skip", "sink"], seed=[0, 1]))
    failed = {"sampling": "bi_random", "depth": "skip", "seed": 3}
    store.add(base | failed, names, status="FAILED", failure="loss is not finite <i>in epoch 5")
    store.add(base | {"sampling": "single", "depth": "skip", "seed": 3}, names, status="RUNNING")
    store.add(base | {"sampling": "single", "depth": "skip", "seed": 0}, names, older=True)
    other = {"sampling": "bi_random", "depth": "sink", "seed": 0}
    store.add(base | other, names, table=make_table(scale=2.0))
    return store


@pytest.fixture(scope="session")
def experiment(store: Store) -> Experiment:
    return read_experiment("demo", store.tracking_uri)


@pytest.fixture(scope="session")
def reported(store: Store) -> Result:
    """What `tfnas report demo` said; its figures, tables and page are in the launch's folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        result = CliRunner().invoke(report, ["demo", "--out", str(store.out_dir)])
    assert result.exit_code == 0, result.output
    return result
