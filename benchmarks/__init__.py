"""Benchmarks of speed and memory: ratios within one run, never part of the tests."""
