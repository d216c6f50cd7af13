"""Reading MLflow: stores, runs, experiments."""
