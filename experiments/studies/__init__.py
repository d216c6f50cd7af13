"""Hyper-parameter studies: Optuna chooses points, the launch runs their searches."""
