"""Products of trained networks: exports, model cards, measured latencies."""
