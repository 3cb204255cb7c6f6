"""The best model into MLflow's registry, and what MLflow serves."""
