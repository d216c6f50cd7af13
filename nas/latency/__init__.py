"""The additive latency model: lookup tables, how they are measured, imported, checked and calibrated."""

from nas.latency.entry import OpKey
from nas.latency.table import LatencyTable

__all__ = ["LatencyTable", "OpKey"]
