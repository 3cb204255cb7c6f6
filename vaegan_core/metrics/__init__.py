"""What is measured: validation metrics, the feature space they live in, and diagnoses."""
