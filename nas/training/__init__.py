"""Training one network from scratch, and exporting it."""
