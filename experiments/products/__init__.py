"""What comes out of trained networks: exports, model cards, measured latencies."""
