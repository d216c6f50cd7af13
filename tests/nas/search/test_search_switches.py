"""Every combination of the switches runs a joint epoch ."""

import math

import numpy as np
import pytest

from nas.config import SearchConfig
from nas.search.records import (
    FINAL_METRIC_NAMES,
    METRIC_NAMES,
    MULTIPLIER_METRIC_NAMES,
    STEP_METRIC_NAMES,
    SUPERNET_FINAL_METRIC_NAMES,
    SUPERNET_METRIC_NAMES,
)
from nas.search.search import run_search
from nas.supernet.objectives import OBJECTIVES
from nas.supernet.sampling import SAMPLINGS
from tests.support.tiny import TINY, make_dense_table

TABLE = make_dense_table(TINY)
ALL_METRIC_NAMES = {
    *(*METRIC_NAMES, *SUPERNET_METRIC_NAMES, *STEP_METRIC_NAMES),
    *(*FINAL_METRIC_NAMES, *SUPERNET_FINAL_METRIC_NAMES),
}


@pytest.mark.parametrize("elasticity", [True, False])
@pytest.mark.parametrize("objective", list(OBJECTIVES))
@pytest.mark.parametrize("depth", ["sink", "skip"])
@pytest.mark.parametrize("sampling", list(SAMPLINGS))
def test_a_joint_epoch_runs(sampling: str, depth: str, objective: str, elasticity: bool) -> None:
    config = SearchConfig(
        space=TINY.name,
        sampling=sampling,
        depth=depth,
        objective=objective,
        elasticity=elasticity,
        # Every network of the space can have it: the slowest at its smallest widths takes 2.54 ms.
        target_latency_ms=2.6,
        max_train_images=40,
        augmentation="none",
        batch_size=8,
        num_epochs=1,
        num_warmup_epochs=0,
        device="cpu",
    )
    (record,) = run_search(config, table=TABLE)
    further = MULTIPLIER_METRIC_NAMES if objective == "lagrangian" else ()
    assert set(record.metrics) == {*ALL_METRIC_NAMES, *further}
    assert all(math.isfinite(value) for value in record.metrics.values())
    assert np.isfinite(record.arrays["scaling_ms_EP"]).any() == elasticity
    assert not elasticity or record.metrics["derived_latency_ms"] <= 2.6
    assert record.arrays["alpha_ELO"].shape == (6, 9 if depth == "skip" else 8)
