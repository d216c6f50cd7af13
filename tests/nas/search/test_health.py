"""The health check: each fault of a search is found, and nothing else."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nas.config import SearchConfig
from nas.search.health import HealthCheck, check_health, foresee_health
from nas.search.records import EpochRecord
from nas.search.search import run_search
from nas.space.architecture import Architecture
from tests.support.tiny import TINY, make_config, make_dense_table

ALL = ["alphas", "temperature", "warmup", "latency", "widths", "depth", "accuracy"]
HEALTHY = {
    "temperature": 0.2,
    "latency_error_percent": -0.4,
    "val_accuracy": 0.8,
    "initial_accuracy": 0.7,
    "chance_accuracy": 0.1,
}


@pytest.fixture(scope="module")
def config() -> SearchConfig:
    return make_config(num_epochs=2, num_warmup_epochs=1)


@pytest.fixture(scope="module")
def searched(config: SearchConfig) -> list[EpochRecord]:
    return list(run_search(config, table=make_dense_table(TINY)))


def widths_at(architecture: Architecture, end: int | None) -> Architecture:
    """The network with all widths at a bound (0 the lower, 1 the upper), or as operators begin."""
    return architecture.with_widths(
        [
            op.initial_width(layer.in_channels) if end is None else op.width_interval(layer.in_channels)[end]
            for layer, op, _ in architecture.layers
        ]
    )


def network(depths: tuple[int, ...], end: int | None = None) -> Architecture:
    stages = tuple(
        tuple(
            {"op": "k3_e3", "mid_channels": 3 * layer.in_channels}
            for layer in TINY.stage_layers(stage)[:depth]
        )
        for stage, depth in enumerate(depths)
    )
    return widths_at(Architecture.model_validate({"space": TINY.name, "stages": stages}), end)


def with_alphas(record: EpochRecord, highest: list[float], ops: list[int]) -> EpochRecord:
    """The record with these probabilities of the leading operators, and these operators (-1: dropped)."""
    rest = (1 - np.array(highest)[:, None]) / 7
    alpha_LO = np.log(np.hstack([np.array(highest)[:, None], np.repeat(rest, 7, axis=1)])).astype(np.float32)
    return replace(record, arrays=record.arrays | {"alpha_ELO": alpha_LO, "derived_op_EL": np.array(ops)})


def healthy_records(
    searched: list[EpochRecord], architecture: Architecture | None = None, **metrics: float
) -> list[EpochRecord]:
    first, last = searched
    counts_LO = np.full_like(first.arrays["train_count_ELO"], 40)
    first = replace(first, arrays=first.arrays | {"train_count_ELO": counts_LO})
    deep = network(tuple(stage.num_layers for stage in TINY.stages))
    last = with_alphas(last, [0.9] * len(TINY.layers), [0] * len(TINY.layers))
    return [first, replace(last, metrics=last.metrics | HEALTHY | metrics, architecture=architecture or deep)]


def failed(checks: list[HealthCheck]) -> list[str]:
    return [check.name for check in checks if not check.is_healthy]


def test_a_healthy_search_passes_every_check(config: SearchConfig, searched: list[EpochRecord]) -> None:
    checks = check_health(config, healthy_records(searched))
    assert [check.name for check in checks] == ALL
    assert failed(checks) == []
    assert all(check.finding and not check.remedy for check in checks)


@pytest.mark.parametrize(
    ("metrics", "name", "field"),
    [
        ({"temperature": 3.2}, "temperature", "final_temperature"),
        ({"latency_error_percent": -1.2}, "latency", "lower target_latency_ms"),
        ({"latency_error_percent": 26.0}, "latency", "raise target_latency_ms"),
        ({"val_accuracy": 0.12, "initial_accuracy": 0.1}, "accuracy", "num_epochs"),
        ({"val_accuracy": 0.69}, "accuracy", "weight_lr"),
    ],
)
def test_a_fault_fails_its_check_alone_and_names_the_field_to_change(
    config: SearchConfig, searched: list[EpochRecord], metrics: dict[str, float], name: str, field: str
) -> None:
    checks = check_health(config, healthy_records(searched, **metrics))
    assert failed(checks) == [name]
    assert field in next(check.remedy for check in checks if check.name == name)


METHODS_AND_OBJECTIVES = [
    *({"objective": name} for name in ("tfnas", "fbnet", "proxyless_add", "proxyless_mul", "lagrangian")),
    *({"method": name} for name in ("random", "gp_nas")),
]


@pytest.mark.parametrize("fields", METHODS_AND_OBJECTIVES, ids=str)
def test_a_remedy_names_no_field_that_has_no_effect(
    config: SearchConfig, searched: list[EpochRecord], fields: dict[str, str]
) -> None:
    config = config.model_copy(update=fields)
    narrow = network(tuple(stage.num_layers for stage in TINY.stages), 0)
    records = healthy_records(searched, narrow, latency_error_percent=26.0)
    records[0] = replace(records[0], arrays=searched[0].arrays)
    remedies = {check.name: check.remedy for check in check_health(config, records)}
    assert all(remedies[name] for name in ("warmup", "latency", "widths"))
    # The depth of a network is named, too.
    names = SearchConfig.model_fields.keys() - {"depth"}
    named = {name for name in names if any(name in text for text in remedies.values())}
    assert named
    assert not named & config.unused_fields()


@pytest.mark.parametrize(("end", "bound"), [(0, "lower"), (1, "upper")])
def test_widths_that_are_all_at_one_bound_fail(
    config: SearchConfig, searched: list[EpochRecord], end: int, bound: str
) -> None:
    deep = network(tuple(stage.num_layers for stage in TINY.stages), end)
    checks = check_health(config, healthy_records(searched, deep))
    assert failed(checks) == ["widths"]
    assert bound in next(check.finding for check in checks if check.name == "widths")


@pytest.mark.parametrize(
    ("num_at_floor", "ends_at_floor", "is_healthy"),
    [(0, False, True), (2, False, True), (3, False, False), (1, True, False)],
)
def test_a_depth_that_lies_at_its_floor_fails(
    config: SearchConfig,
    searched: list[EpochRecord],
    num_at_floor: int,
    ends_at_floor: bool,
    is_healthy: bool,
) -> None:
    floor = network(tuple(TINY.min_depth(stage) for stage in range(len(TINY.stages))))
    warmup, deep = healthy_records(searched)
    shallow = replace(deep, architecture=floor)
    joint = [shallow] * num_at_floor + [deep] * (4 - num_at_floor)
    records = [warmup, *(joint[::-1] if ends_at_floor else joint)]
    assert failed(check_health(config, records)) == ([] if is_healthy else ["depth"])


@pytest.mark.parametrize(
    ("highest", "ops", "is_healthy"),
    [
        ([0.9] * 6, [0] * 6, True),
        ([0.4] * 6, [0] * 6, False),
        ([0.9, 0.9, 0.125, 0.9, 0.9, 0.125], [0, 0, -1, 0, 0, -1], True),
        ([0.9, 0.9, 0.125, 0.125, 0.125, 0.125], [0, 0, 0, 0, 0, 0], False),
    ],
)
def test_alphas_of_the_layers_that_are_kept_must_have_moved(
    config: SearchConfig,
    searched: list[EpochRecord],
    highest: list[float],
    ops: list[int],
    is_healthy: bool,
) -> None:
    records = healthy_records(searched)
    records[-1] = with_alphas(records[-1], highest, ops)
    assert failed(check_health(config, records)) == ([] if is_healthy else ["alphas"])


def test_candidates_that_warm_up_hardly_trained_fail(
    config: SearchConfig, searched: list[EpochRecord]
) -> None:
    records = healthy_records(searched)
    records[0] = replace(records[0], arrays=searched[0].arrays)
    assert failed(check_health(config, records)) == ["warmup"]


def test_a_search_without_elasticity_scaling_is_not_held_to_its_target(
    config: SearchConfig, searched: list[EpochRecord]
) -> None:
    fixed = config.model_copy(update={"elasticity": False})
    checks = check_health(fixed, healthy_records(searched, latency_error_percent=50.0))
    assert failed(checks) == []
    assert not {"latency", "widths"} & {check.name for check in checks}


def test_a_method_without_alphas_is_not_asked_for_them(
    config: SearchConfig, searched: list[EpochRecord]
) -> None:
    needed = ("val_accuracy", "latency_error_percent", "chance_accuracy")
    records = [
        replace(
            record,
            arrays={},
            metrics={name: record.metrics[name] for name in needed if name in record.metrics},
        )
        for record in healthy_records(searched)
    ]
    assert [check.name for check in check_health(config, records)] == ["latency", "widths", "depth"]


def test_the_last_epoch_alone_counts_the_findings(config: SearchConfig, searched: list[EpochRecord]) -> None:
    assert "num_health_findings" not in searched[0].metrics
    expected = len(failed(check_health(config, searched)))
    assert searched[1].metrics["num_health_findings"] == expected > 0


def foreseen(num_weight_steps: int, **fields: Any) -> list[str]:
    return failed(
        foresee_health(
            SearchConfig(**{"space": "paper", "target_latency_ms": 1.0} | fields), num_weight_steps
        )
    )


def test_the_published_protocol_foresees_nothing() -> None:
    assert foreseen(102_170 // 32) == []


def test_the_published_rates_over_a_few_epochs_are_foreseen_to_search_nothing() -> None:
    short = {"space": "micro", "num_epochs": 16, "num_warmup_epochs": 4}
    assert foreseen(30, **short) == ["alphas", "temperature", "warmup"]
    assert foreseen(60, **short, arch_lr=0.1, final_temperature=0.2) == []


def test_what_is_foreseen_of_the_temperature_is_what_the_last_epoch_has(
    config: SearchConfig, searched: list[EpochRecord]
) -> None:
    (check,) = [one for one in foresee_health(config, 4) if one.name == "temperature"]
    assert f"{searched[-1].metrics['temperature']:.2g}" in check.finding


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_the_rate_that_is_asked_for_is_enough_and_a_tenth_of_it_is_not(schedule: str) -> None:
    fields = {"space": "micro", "num_epochs": 34, "num_warmup_epochs": 4, "arch_lr_schedule": schedule}
    config = SearchConfig(**{"space": "paper", "target_latency_ms": 1.0} | fields, arch_lr=1e-3)
    (check,) = [one for one in foresee_health(config, 60) if one.name == "alphas"]
    rate = float(check.remedy.split()[3].rstrip(","))
    assert "alphas" not in foreseen(60, **fields, arch_lr=rate)
    assert "alphas" in foreseen(60, **fields, arch_lr=rate / 10)
    rates = [
        rate * ((1 + math.cos(math.pi * epoch / 30)) / 2 if schedule == "cosine" else 1)
        for epoch in range(30)
    ]
    assert math.sqrt(sum(30 * one**2 for one in rates)) >= 1
