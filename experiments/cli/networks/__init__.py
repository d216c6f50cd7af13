"""Commands about single networks and their latency tables."""
