"""From the journal to MLflow, and finished runs read back."""
