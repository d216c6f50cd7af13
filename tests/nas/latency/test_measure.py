import os

import numpy as np
import pytest
import torch

from nas.foundation.device import resolve_device
from nas.foundation.errors import UserError
from nas.latency.calibration import draw_architecture
from nas.latency.campaign import TablePoint, compose_networks
from nas.latency.compatibility import Hardware, check_table
from nas.latency.entry import OpKey
from nas.latency.measurement import measure_table
from nas.latency.table import LatencyTable, space_keys
from nas.latency.timing import (
    device_name,
    make_images,
    make_network,
    time_network_ms,
    time_parts_ms,
    timing_conditions,
)
from nas.latency.widths import initial_widths
from nas.space.macro_space import get_space
from tests.support.tiny import OPS, TINY, TINY_AT_8, full_depth_architecture

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def table():
    # Tests run beside each other.
    return measure_table(TINY, max_duration_s=2.0, num_classes=10, even_if_busy=True)


def test_a_measured_table_covers_its_space_and_this_machine(table, tmp_path):
    check_table(table, TINY, Hardware.of("cpu"))
    table.save(tmp_path / "table.json")
    assert LatencyTable.load(tmp_path / "table.json") == table


def test_every_operator_is_measured_at_both_ends_of_its_widths(table):
    assert {entry.key for entry in table.entries} == set(space_keys(TINY))
    for entry in table.entries:
        low, high = space_keys(TINY)[entry.key]
        assert (entry.widths[0], entry.widths[-1]) == (low, high)


def test_latencies_are_positive_and_never_fall_with_the_width(table):
    assert table.base_ms > 0
    for entry in table.entries:
        assert min(entry.latency_ms) > 0
        assert (np.diff(entry.latency_ms) >= 0).all()


def test_what_was_measured_is_kept_beside_what_the_model_uses(table):
    for entry in table.entries:
        # The best rising fit pools neighbours: it stays within what was measured.
        assert min(entry.median_ms) - 1e-9 <= min(entry.latency_ms)
        assert max(entry.latency_ms) <= max(entry.median_ms) + 1e-9
        assert min(entry.iqr_ms) >= 0
        assert min(entry.num_repeats) >= 8


def test_the_provenance_says_under_which_conditions_the_numbers_hold(table):
    provenance = table.provenance
    assert provenance.source == "measured"
    assert (provenance.device_type, provenance.device_name) == ("cpu", device_name(CPU))
    assert (provenance.num_threads, provenance.batch_size, provenance.num_classes) == (1, 1, 10)
    assert provenance.torch_version == torch.__version__
    for value in (provenance.conditions, provenance.measured_on, provenance.duration_s):
        assert value
    assert provenance.num_repeats >= 8
    assert provenance.spread_percent >= 0
    assert 0 <= provenance.num_busy_cpus <= provenance.num_cpus == len(os.sched_getaffinity(0))


def _initial_points(space):
    return [
        TablePoint(key, width) for key, ends in space_keys(space).items() for width in initial_widths(*ends)
    ]


@pytest.mark.parametrize("space", [TINY, TINY_AT_8, get_space("micro"), get_space("paper")])
def test_measurement_networks_hold_every_point(space):
    points = [
        TablePoint(key, width)
        for key, interval in space_keys(space).items()
        for width in initial_widths(*interval)
    ]
    networks = list(compose_networks(space, points, [], np.random.default_rng(0)))
    assert set().union(*networks) == set(points)
    for network in networks:
        for layer, point in zip(space.layers, network, strict=True):
            keys = {OpKey.of(layer, op) for op in OPS}
            assert point.key in keys


def test_layers_that_are_left_are_filled_with_known_points():
    points = _initial_points(TINY)
    (network,) = compose_networks(TINY, points[:1], points, np.random.default_rng(0))
    assert points[0] in network
    assert set(network) <= set(points)
    assert len(network) == len(TINY.layers)


def test_a_network_timed_in_parts_computes_what_it_computes_as_a_whole():
    architecture = draw_architecture(TINY, np.random.default_rng(0))
    network, images_BCHW = make_network(architecture, 10, CPU), torch.rand(2, 3, 16, 16)
    outputs = []
    network.classifier.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    with torch.inference_mode():
        times_ms = time_parts_ms(network, images_BCHW)
        network(images_BCHW)
    torch.testing.assert_close(outputs[0], outputs[1])
    assert len(times_ms) == architecture.depth + 1
    assert (times_ms > 0).all()


def test_networks_to_be_timed_keep_their_activations_in_the_range_of_normal_numbers():
    space = get_space("paper").at_resolution(32)
    network = make_network(full_depth_architecture(space), 10, CPU)
    seen = []
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(
                lambda module, inputs, output: seen.append(output.abs().min().item())
            )
    with torch.inference_mode():
        network(make_images(32, 1, CPU))
    assert min(seen) > 1e-30
    assert max(seen) < 1e30


def test_timing_conditions_are_restored():
    threads = torch.get_num_threads()
    with timing_conditions(threads + 1):
        assert torch.get_num_threads() == threads + 1
        assert torch.is_inference_mode_enabled()
    assert torch.get_num_threads() == threads
    assert not torch.is_inference_mode_enabled()


def test_a_whole_network_takes_time():
    network = make_network(full_depth_architecture(TINY), 10, CPU)
    with timing_conditions(1):
        assert time_network_ms(network, make_images(16, 1, CPU)) > 0


@pytest.mark.parametrize(
    ("name", "message"), [("tpu0", "'tpu0'"), ("meta", "'meta'"), ("cuda:99", "'cuda:99'")]
)
def test_a_device_that_cannot_be_timed_is_refused(name, message):
    with pytest.raises(UserError, match=message):
        resolve_device(name)
