"""MLflow runs to numbers, figures, tables and verdicts."""
