"""Whether a few networks, measured now, contradict a table."""

import numpy as np
import pytest
import torch

from nas.latency.measurement import measure_table
from nas.latency.quiet import LoadMeter, OtherLoad
from nas.latency.spot_check import UNCALIBRATED_PERCENT, SpotCheck, spot_check
from nas.latency.table import Calibration, LatencyTable
from tests.support.tiny import TINY, make_dense_table

QUIET, BUSY = OtherLoad(0.0, 2), OtherLoad(0.9, 2)


def calibration(slope: float, half_width_percent: float) -> Calibration:
    return Calibration(
        slope=slope,
        intercept_ms=0.0,
        num_networks=30,
        mape_percent=1.0,
        half_width_percent=half_width_percent,
        measured_on="2026-01-01T00:00:00+00:00",
    )


@pytest.fixture(scope="module")
def table() -> LatencyTable:
    return measure_table(TINY, max_duration_s=1.0, num_classes=10, even_if_busy=True)


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> list[OtherLoad]:
    """What other processes use: nothing, whatever runs beside the tests."""
    read = [QUIET]
    monkeypatch.setattr(LoadMeter, "load", lambda meter: read[0])
    return read


@pytest.mark.parametrize(("factor", "word"), [(0.1, "longer"), (10.0, "less")])
def test_a_table_ten_times_off_is_doubted(
    table: LatencyTable, load: list[OtherLoad], factor: float, word: str
) -> None:
    """Whatever runs beside the tests makes less difference."""
    check = spot_check(table.with_calibration(calibration(factor, 50.0)), "cpu")
    assert check is not None
    assert check.interval_percent == 50.0
    assert check.doubt is not None
    assert f"{abs(check.deviation_percent):.0f} % {word} than the table says" in check.doubt


def test_the_deviation_is_relative_to_the_table(table: LatencyTable) -> None:
    """A hundredth of what was measured: 9900 % longer, give or take what runs beside the tests."""
    check = spot_check(table.with_calibration(calibration(0.01, 5.0)), "cpu")
    assert check is not None
    assert 2000 < check.deviation_percent < 50_000


@pytest.mark.parametrize("deviation_percent", [-11.0, -9.0, 0.0, 9.0, 11.0])
@pytest.mark.parametrize("load", [QUIET, BUSY])
def test_there_is_a_doubt_beyond_the_interval_and_none_on_a_busy_machine(
    deviation_percent: float, load: OtherLoad
) -> None:
    check = SpotCheck("tiny", deviation_percent, UNCALIBRATED_PERCENT, load)
    is_doubted = abs(deviation_percent) > 10 and not load.is_busy
    assert (check.doubt is not None) == is_doubted


def test_tables_that_stand_for_other_devices_are_not_compared() -> None:
    table = make_dense_table(TINY)
    imported = table.provenance.model_copy(update={"source": "imported"})
    for each in (table, table.model_copy(update={"provenance": imported})):
        assert spot_check(each, "cpu") is None


def test_a_check_draws_from_no_generator_of_the_process(table: LatencyTable) -> None:
    np.random.seed(0)
    states = [torch.get_rng_state(), np.random.get_state()[1], torch.get_num_threads()]
    spot_check(table, "cpu")
    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])
    assert states[2] == torch.get_num_threads()
