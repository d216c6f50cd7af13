"""How long tests wait for other processes: they end early or never, so a slow machine may take its time."""

PATIENCE_S = 1000.0
"""Four times what the longest launch of the suite takes on two busy cores. The limit of a test is higher."""
