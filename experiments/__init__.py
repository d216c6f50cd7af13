"""Ray, MLflow, Optuna, YAML and the command line."""
