"""Trials on Ray: the driver, and the worker it talks to."""
