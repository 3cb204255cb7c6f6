"""From the journal to MLflow, and back."""
