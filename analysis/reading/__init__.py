"""Reading MLflow: stores, runs, experiments, studies."""
