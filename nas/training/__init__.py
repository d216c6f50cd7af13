"""Training a network from scratch, exporting it, and predicting with it."""
