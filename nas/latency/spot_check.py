"""Spot check: whether a lookup table holds on this machine now, by a few networks, in seconds."""

import time
from dataclasses import dataclass

import numpy as np

from nas.foundation.device import resolve_device
from nas.latency.calibration import predict_ms, time_architectures
from nas.latency.quiet import LoadMeter, OtherLoad
from nas.latency.table import LatencyTable
from nas.space.architecture import draw_architecture
from nas.space.macro_space import get_space

UNCALIBRATED_PERCENT = 10.0
"""Interval of a table without a calibration: by so much, machines drift within minutes (docs/latency.md)."""

_NUM_NETWORKS = 3
_NUM_ROUNDS = 5
_SETTLING_S = 0.5


@dataclass(frozen=True)
class SpotCheck:
    """A few networks of a table's space, measured and as the table has them.

    Attributes:
        deviation_percent: by how much they take longer than the table says, as a median over the networks.
        interval_percent: half width of the table's interval, within which it may be off.
        load: what other processes used meanwhile; if that is much, the rest means nothing.
    """

    space: str
    deviation_percent: float
    interval_percent: float
    load: OtherLoad

    @property
    def doubt(self) -> str | None:
        """Why the table may be wrong; None if it holds, or if the machine was too busy to know."""
        if self.load.is_busy or abs(self.deviation_percent) <= self.interval_percent:
            return None
        word = "longer" if self.deviation_percent > 0 else "less"
        return (
            f"{_NUM_NETWORKS} networks of '{self.space}' now take {abs(self.deviation_percent):.0f} % {word} "
            f"than the table says, whose interval is ±{self.interval_percent:.0f} %; measure a new table"
        )


def spot_check(table: LatencyTable, device: str) -> SpotCheck | None:
    """Measures a few networks under the conditions of a table. Draws from no generator but its own.

    Args:
        device: that of the search.

    Returns:
        None for a table that is not of this machine: imported or synthetic.

    Raises:
        UserError: there is no such device.
    """
    if table.provenance.source != "measured":
        return None
    meter, rng = LoadMeter(), np.random.default_rng(0)
    # The networks alone would take too little time to notice other processes.
    time.sleep(_SETTLING_S)
    architectures = [draw_architecture(get_space(table.space), rng) for _ in range(_NUM_NETWORKS)]
    timings = time_architectures(
        architectures,
        table.provenance,
        # A search on a GPU may use the table of the CPU beside it.
        resolve_device(device if table.provenance.device_type == "cuda" else "cpu"),
        rng,
        num_rounds=_NUM_ROUNDS,
    )
    measured_ms_N = np.array([timing.median_ms for timing in timings])
    deviation = float(np.median(measured_ms_N / predict_ms(table, architectures) - 1))
    interval = table.calibration.half_width_percent if table.calibration else UNCALIBRATED_PERCENT
    return SpotCheck(table.space, 100 * deviation, interval, meter.load())
