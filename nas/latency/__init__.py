"""The additive latency model: lookup tables, how they are measured, imported and checked."""

from nas.latency.table import LatencyTable, OpKey

__all__ = ["LatencyTable", "OpKey"]
