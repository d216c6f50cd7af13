"""Hyper-parameter studies: Optuna chooses the points, the launch machinery runs their searches."""
