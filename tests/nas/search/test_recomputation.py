"""Records of searches follow from their rawest parts, and a change of any part shows."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from nas.config import SearchConfig
from nas.latency.table import LatencyTable
from nas.search.health import check_health
from nas.search.recomputation import Recomputed, SearchRecords, recompute
from nas.search.records import EpochRecord, Trajectory
from nas.search.search import run_search
from tests.support.tiny import TINY, make_config, make_dense_table

TABLE = make_dense_table(TINY)


def records_of(config: SearchConfig, records: list[EpochRecord], table: LatencyTable) -> SearchRecords:
    names = dict.fromkeys(name for record in records for name in record.metrics)
    return SearchRecords(
        config,
        table,
        Trajectory.of(config.space, config.as_searched().depth, records),
        {name: np.array([record.metrics.get(name, np.nan) for record in records]) for name in names},
        records[-1].architecture,
        [(record.epoch, each) for record in records for each in record.evaluations],
        check_health(config, records),
    )


@cache
def searched(**fields: Any) -> SearchRecords:
    config = make_config(**fields)
    return records_of(config, list(run_search(config, table=TABLE)), TABLE)


def differing(records: SearchRecords) -> set[str]:
    return {one.quantity for one in recompute(records) if not is_equal(one)}


def is_equal(one: Recomputed) -> bool:
    stored, recomputed = np.asarray(one.stored), np.asarray(one.recomputed)
    if stored.dtype.kind == "f" and recomputed.dtype.kind == "f":
        np.testing.assert_equal(stored.shape, recomputed.shape)
        return bool(np.allclose(stored, recomputed, rtol=one.tolerance, atol=0, equal_nan=True))
    return np.array_equal(stored, recomputed)


COURSES = [
    {"depth": "sink", "derivation": "in_reach"},
    {"depth": "skip", "derivation": "in_reach", "sampling": "bi_gumbel"},
    {"depth": "skip", "refine_widths": True, "final_temperature": 0.2},
    {"depth": "sink", "elasticity": False, "sampling": "single"},
    {"method": "random", "num_evaluations": 20},
    {"method": "gp_nas", "num_evaluations": 20, "elasticity": False},
]


@pytest.mark.parametrize("fields", COURSES, ids=str)
def test_all_that_follows_from_a_search_is_what_it_recorded(fields: dict[str, Any]) -> None:
    records = searched(**fields)
    found = [one.quantity for one in recompute(records)]
    assert {"operators and depths", "derived_latency_ms", "derived network", "health"} <= set(found)
    assert differing(records) == set()


CHANGES = {
    "alpha_ELO": "operators and depths",
    "beta_ESD": "operators and depths",
    "mid_channels_ELO": "widths",
    "derived_op_EL": "operators and depths",
    "train_count_ELO": "training counts",
    "scaling_ms_EP": "latencies of scaling",
    "redundant_E": "redundant epochs",
    "is_joint_E": "joint epochs",
    "epoch_E": "epochs",
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_an_array_shows_where_it_matters(name: str) -> None:
    records = searched(**COURSES[0])
    array = getattr(records.trajectory, name).copy()
    if name in ("alpha_ELO", "beta_ESD"):
        # The least probable becomes the most probable.
        array[2] = np.where(np.isfinite(array[2]), -array[2], array[2])
    elif array.dtype == bool:
        array[2] ^= True
    elif name == "derived_op_EL":
        array[2, 0] = (array[2, 0] + 1) % len(TINY.ops)
    else:
        array.reshape(len(array), -1)[2, 0] += 1
    changed = replace(records, trajectory=replace(records.trajectory, **{name: array}))
    assert CHANGES[name] in differing(changed)


METRICS = (
    "derived_latency_ms",
    "latency_error_percent",
    "expected_latency_ms",
    "alpha_entropy",
    "temperature",
)


@pytest.mark.parametrize("name", METRICS)
def test_a_change_of_a_metric_of_one_epoch_shows(name: str) -> None:
    records = searched(**COURSES[0])
    values = records.epochs[name].copy()
    values[1] *= 1.001
    assert name in differing(replace(records, epochs={**records.epochs, name: values}))


def test_another_table_network_or_finding_shows() -> None:
    records = searched(**COURSES[0])
    assert "derived_latency_ms" in differing(replace(records, table=make_dense_table(TINY, seed=1)))
    widths = [width - 1 for _, _, width in records.architecture.layers]
    assert differing(replace(records, architecture=records.architecture.with_widths(widths))) == {
        "derived network"
    }
    assert records.health is not None
    assert differing(replace(records, health=records.health[1:])) == {"health"}


def test_another_evaluated_network_shows() -> None:
    records = searched(**COURSES[4])
    (epoch, first), *others = records.evaluations
    swapped = [(epoch, replace(first, architecture=others[0][1].architecture)), *others]
    assert {"evaluated networks", "latencies of evaluated networks"} <= differing(
        replace(records, evaluations=swapped)
    )
