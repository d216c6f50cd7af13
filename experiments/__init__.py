"""The method as experiments: Ray, Optuna, MLflow and YAML live here and nowhere else."""

from importlib.metadata import version

__version__ = version("tfnas")
