"""MLflow: the one writer, delivery, and finding runs."""
