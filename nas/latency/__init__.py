"""The latency model: lookup tables, their measurement and calibration, and elasticity-scaling."""
