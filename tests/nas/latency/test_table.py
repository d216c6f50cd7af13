import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest

from nas.foundation.errors import UserError
from nas.latency.calibration import draw_architecture
from nas.latency.elasticity import scale_to_latency
from nas.latency.entry import OpKey
from nas.latency.table import Calibration, LatencyEntry, LatencyTable, reachable_interval_ms, space_keys
from nas.space.macro_space import get_space
from tests.support.tiny import OPS, TINY, make_dense_table

CORRECTION = Calibration(
    slope=1.2,
    intercept_ms=-0.3,
    num_networks=30,
    mape_percent=2.0,
    half_width_percent=5.0,
    measured_on="2026-01-01T00:00:00+00:00",
)


@pytest.fixture(scope="module")
def table():
    return make_dense_table(TINY)


@pytest.fixture
def architectures():
    rng = np.random.default_rng(0)
    return [draw_architecture(TINY, rng) for _ in range(20)]


@pytest.fixture
def content(table):
    return json.loads(table.model_dump_json(exclude_none=True))


def _plain_sum_ms(table, architecture):
    total_ms = table.base_ms
    for layer, op, width in architecture.layers:
        (entry,) = [entry for entry in table.entries if entry.key == OpKey.of(layer, op)]
        total_ms += entry.latency_ms[entry.widths.index(width)]
    return total_ms


def test_latency_is_the_base_and_the_entries_of_the_kept_layers(table, architectures):
    for architecture in architectures:
        assert table.latency_ms(architecture) == pytest.approx(_plain_sum_ms(table, architecture))


@pytest.mark.parametrize(
    ("num_busy_cpus", "num_cpus", "is_busy"),
    [(None, None, False), (0.25, None, False), (0.26, None, True), (0.26, 2, True), (0.6, 16, False)],
)
def test_a_table_that_was_measured_on_a_busy_machine_is_doubted(table, num_busy_cpus, num_cpus, is_busy):
    load = {"num_busy_cpus": num_busy_cpus, "num_cpus": num_cpus}
    assert (table.provenance.model_copy(update=load).doubt is not None) == is_busy


def test_the_fingerprint_of_a_table_from_before_the_number_of_cpus_was_recorded_stays(tmp_path):
    """Results are known by it: what it was when this table was measured."""
    path = Path(__file__).parents[2] / "support" / "micro_latency_table.json"
    assert LatencyTable.load(path).fingerprint == (
        "3919550c7aabbe3f8aeb681c2473372d3b5414316c541e7aa793cadb9d085a4e"
    )
    table = make_dense_table(TINY)
    newer = table.model_copy(update={"provenance": table.provenance.model_copy(update={"num_cpus": 2})})
    assert newer.fingerprint != table.fingerprint
    newer.save(tmp_path / "newer.json")
    assert LatencyTable.model_validate_json(newer.model_dump_json()).provenance.num_cpus == 2


def test_a_correction_is_in_everything_that_is_read(table, architectures):
    corrected = table.with_calibration(CORRECTION)
    for architecture in architectures:
        expected_ms = 1.2 * _plain_sum_ms(table, architecture) - 0.3
        assert corrected.latency_ms(architecture) == pytest.approx(expected_ms)
        parts_ms = corrected.base_latency_ms + sum(corrected.layer_latencies_ms(architecture))
        assert parts_ms == pytest.approx(expected_ms)
    low_ms, high_ms = reachable_interval_ms(table)
    assert reachable_interval_ms(corrected) == pytest.approx((1.2 * low_ms - 0.3, 1.2 * high_ms - 0.3))


def test_elasticity_scaling_meets_its_target_by_corrected_latency(table, architectures):
    corrected = table.with_calibration(CORRECTION)
    for architecture in architectures:
        intervals = [op.width_interval(layer.in_channels) for layer, op, _ in architecture.layers]
        bounds = [architecture.with_widths(widths) for widths in zip(*intervals, strict=True)]
        target_ms = np.mean([corrected.latency_ms(bound) for bound in bounds])
        scaled = scale_to_latency(architecture, corrected, target_ms)
        assert 0.95 * target_ms < corrected.latency_ms(scaled) <= target_ms


def test_a_corrected_prediction_comes_with_an_interval_around_it(table, architectures):
    assert table.interval_ms(architectures[0]) is None
    corrected = table.with_calibration(CORRECTION)
    latency_ms = corrected.latency_ms(architectures[0])
    assert corrected.interval_ms(architectures[0]) == pytest.approx((0.95 * latency_ms, 1.05 * latency_ms))


def test_the_reachable_interval_is_that_of_all_networks_of_extreme_widths(table):
    every_ms, full_ms = zip(*(_stage_latencies_ms(table, stage) for stage in range(3)), strict=True)
    for latencies_ms, full_depth in ((every_ms, False), (full_ms, True)):
        expected_ms = (
            table.base_ms + sum(min(of_stage) for of_stage in latencies_ms),
            table.base_ms + sum(max(of_stage) for of_stage in latencies_ms),
        )
        assert reachable_interval_ms(table, full_depth=full_depth) == pytest.approx(expected_ms)


def _stage_latencies_ms(table, stage):
    """Latency of a stage for each depth, operators, and widths at a bound; and those at full depth only."""
    curves = {entry.key: entry.latency_ms for entry in table.entries}
    choices = [
        [
            curves[OpKey.of(layer, op)][width - 1]
            for op in OPS
            for width in op.width_interval(layer.in_channels)
        ]
        for layer in TINY.stage_layers(stage)
    ]
    by_depth = [
        [sum(chosen) for chosen in itertools.product(*choices[:depth])]
        for depth in range(TINY.min_depth(stage), len(choices) + 1)
    ]
    return list(itertools.chain(*by_depth)), by_depth[-1]


def test_at_initial_widths_the_interval_is_narrower(table):
    low_ms, high_ms = reachable_interval_ms(table)
    initial_low_ms, initial_high_ms = reachable_interval_ms(table, initial_widths=True)
    assert low_ms < initial_low_ms < initial_high_ms < high_ms


def test_identical_operators_of_different_layers_share_an_entry():
    keys = space_keys(get_space("paper"))
    assert len(keys) == 66
    assert len(get_space("paper").layers) * len(OPS) == 144


def test_a_saved_table_reads_the_same(table, tmp_path):
    corrected = table.with_calibration(CORRECTION)
    corrected.save(tmp_path / "table.json")
    loaded = LatencyTable.load(tmp_path / "table.json")
    assert loaded == corrected
    assert loaded.fingerprint == corrected.fingerprint


def test_the_fingerprint_tells_any_two_tables_apart(table):
    provenance = table.provenance.model_copy(update={"num_threads": 2})
    others = [
        table.model_copy(update={"base_ms": table.base_ms + 1e-9}),
        table.model_copy(update={"provenance": provenance}),
        table.with_calibration(CORRECTION),
    ]
    assert len({other.fingerprint for other in (table, *others)}) == 4


def _load(content, tmp_path):
    path = tmp_path / "broken.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return LatencyTable.load(path)


def test_a_truncated_table_is_refused_in_one_line(content, tmp_path):
    text = json.dumps(content)
    with pytest.raises(UserError, match="not a latency table") as error:
        _load(text[: len(text) // 2], tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("unit", "s", "unit: 's'"),
        ("schema_version", 2, "schema_version: 2.*update tfnas"),
        ("base_ms", -1.0, r"base_ms: -1\.0"),
        ("base_ms", float("nan"), "base_ms: nan"),
        ("base_ms", "3.0", "base_ms: '3.0'"),
        ("space", "nowhere", "no space 'nowhere'"),
        ("comment", "by hand", "comment: unknown field"),
        ("entries", None, "entries"),
    ],
)
def test_a_hand_edited_field_is_named_with_file_and_value(content, tmp_path, field, value, message):
    with pytest.raises(UserError, match=f"broken.json: .*{message}") as error:
        _load(content | {field: value}, tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("value", "message"), [(-0.1, "cannot be negative"), (float("nan"), "nan"), (float("inf"), "inf")]
)
def test_an_impossible_entry_is_refused(content, tmp_path, value, message):
    content["entries"][3]["latency_ms"][5] = value
    with pytest.raises(UserError, match=message):
        _load(content, tmp_path)


def test_imported_tables_may_hold_negative_entries(content, tmp_path):
    content["entries"][3]["latency_ms"][0] = -0.1
    content["provenance"]["source"] = "imported"
    assert _load(content, tmp_path).entries[3].latency_ms[0] == -0.1


def test_a_missing_operator_is_named_with_the_file(content, table, tmp_path):
    del content["entries"][3]
    with pytest.raises(UserError, match=f"broken.json: no entry for {re.escape(str(table.entries[3].key))}"):
        _load(content, tmp_path)


def test_a_missing_width_is_named_with_the_file(content, tmp_path):
    for values in ("widths", "latency_ms"):
        content["entries"][0][values] = content["entries"][0][values][:-3]
    with pytest.raises(UserError, match=r"broken.json: .* lacks widths"):
        _load(content, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda entry: entry["widths"].reverse(), "ascend"),
        (lambda entry: entry["latency_ms"].pop(), "latency_ms"),
    ],
)
def test_an_entry_that_is_no_curve_is_refused(content, tmp_path, change, message):
    change(content["entries"][0])
    with pytest.raises(UserError, match=message):
        _load(content, tmp_path)


def test_a_key_that_comes_twice_is_refused(content, tmp_path):
    content["entries"].append(content["entries"][0])
    with pytest.raises(UserError, match="twice"):
        _load(content, tmp_path)


def test_an_architecture_of_another_space_is_refused(table):
    other = draw_architecture(get_space("micro"), np.random.default_rng(0))
    with pytest.raises(UserError, match=r"'tiny'.*'micro'"):
        table.latency_ms(other)


def test_widths_beyond_the_measured_ones_are_not_extrapolated(table):
    entry = LatencyEntry(key=table.entries[0].key, widths=(8, 12), latency_ms=(1.0, 2.0))
    assert np.isnan(entry.curve_ms[:8]).all()
    assert len(entry.curve_ms) == 13
