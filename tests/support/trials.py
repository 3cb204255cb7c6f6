"""A tiny valid trial, as plain data, for tests to change."""

import copy
from typing import Any

from vaegan_core.config.trial import TrialConfig, parse_trial
from vaegan_core.strict_yaml import set_override

TINY: dict[str, Any] = {
    "frames": "unused",
    "model": {"latent_dim": 8, "width": 4, "depth": 2},
    "loss": {"kl": {"control": "fixed", "sigma": 0.3}, "pixel": {"weight": 1.0}},
    "optimizer": {"autoencoder": {"lr": 1e-3}},
    "train": {
        "steps": 12,
        "batch_size": 8,
        "log_every": 3,
        "device": "cpu",
        "threads": 1,
        "precision": "float32",
        "channels_last": False,
        "compile": False,
    },
    "evaluate": {"every": 6, "num_test": 16, "num_samples": 32},
}


def tiny(**changes: Any) -> TrialConfig:
    """TINY with changes by dotted name, dots written as double underscores."""
    data = copy.deepcopy(TINY)
    for name, value in changes.items():
        node = data
        *parents, last = name.split("__")
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = value
    return parse_trial(data)


def tiny_from(*assignments: str) -> TrialConfig:
    data = copy.deepcopy(TINY)
    for assignment in assignments:
        set_override(data, assignment)
    return parse_trial(data)
