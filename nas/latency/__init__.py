"""The latency model: lookup tables, how they are measured and calibrated, and elasticity-scaling."""
