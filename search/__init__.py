"""Hyperparameter search over VAE-GANs: Ray Tune schedules, Optuna chooses, MLflow holds every curve."""
