"""The supernet: candidates, mixed blocks, sampling, objectives, and the two optimizer steps."""
