"""The method: spaces, supernet, sampling, elasticity-scaling, search, training."""
