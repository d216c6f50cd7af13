"""MLflow: its only writer, delivery, and finding runs."""
