"""Small valid configurations and reports that several test modules start from."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from search.config.load import parse_sweep
from search.config.sweep import Sweep
from search.journal.journal import Journal
from vaegan_core.evaluation import KL_PER_DIM, LAYOUT_FD, PIXEL_MSE, Evaluation, Outcome, Point
from vaegan_core.problems import ConfigError

TRIAL: dict[str, Any] = {
    "frames": "frames",
    "model": {"latent_dim": 4, "width": 8},
    "loss": {"kl": {"control": "fixed", "beta": 1.0}},
    "train": {"steps": 480},
    "evaluate": {"every": 40},
}
SPACE: dict[str, Any] = {
    "optimizer.autoencoder.lr": {"low": 1e-4, "high": 1e-2, "log": True},
    "model.width": [8, 16],
    "loss.kl": {
        "one_of": {
            "fixed": {"sigma": {"low": 0.05, "high": 0.6, "log": True}},
            "capacity": {"gamma_sigma": 0.1, "capacity_max": {"low": 10, "high": 150}, "ramp": 0.5},
        }
    },
}
BASELINES = {"mean_color_mse": 0.2, "mean_color_layout_fd": 100.0, "floor_layout_fd": 1.0}
"""Scores of trivial models on a frame set that does not exist."""


def trial_data() -> dict[str, Any]:
    return copy.deepcopy(TRIAL)


def sweep_data(**changes: Any) -> dict[str, Any]:
    """A valid sweep whose base leaves the KL weight to the space, with top-level keys replaced."""
    base = trial_data()
    del base["loss"]["kl"]["beta"]
    data: dict[str, Any] = {
        "name": "toy",
        "base": base,
        "space": copy.deepcopy(SPACE),
        "sampler": {"name": "random"},
        "scheduler": {"name": "asha", "min_steps": 120, "reduction_factor": 2},
        "budget": {"trials": 6},
    }
    return data | changes


_SWEEPS: dict[str, Sweep] = {}


def points_alone(**points: Any) -> dict[str, Any]:
    """A sweep of points, without a space."""
    data = sweep_data(base=trial_data(), points=points)
    del data["space"], data["scheduler"]
    return data | {"budget": {"trials": len(points)}}


def problems(data: dict[str, Any]) -> list[tuple[str, str]]:
    """(path, message) of everything wrong with a sweep."""
    with pytest.raises(ConfigError) as caught:
        parse_sweep(data, "sweep")
    return caught.value.problems


def make_sweep(**changes: Any) -> Sweep:
    key = json.dumps(changes)
    if key not in _SWEEPS:
        _SWEEPS[key] = parse_sweep(sweep_data(**changes), "toy sweep")
    return _SWEEPS[key]


def make_journal(directory: Path) -> Journal:
    return Journal.create(directory / "journal.db", id="a")


def evaluation(
    step: int, mse: float = 0.5, fd: float = 5.0, outcome: Outcome = "running", reason: str = ""
) -> Evaluation:
    """What a trial reports at `step`; a diverged one has no metrics."""
    metrics = {} if outcome == "diverged" else {PIXEL_MSE: mse, LAYOUT_FD: fd}
    points = tuple(Point(key, step, value, 1000 + step) for key, value in metrics.items())
    images = {} if outcome == "diverged" else {"prior_samples": b"png of %d" % step}
    return Evaluation(step, outcome, metrics, points, images, reason)


def with_kl(step: int, mse: float, fd: float, kl: float, outcome: Outcome = "completed") -> Evaluation:
    found = evaluation(step, mse, fd, outcome)
    return Evaluation(found.step, found.outcome, found.metrics | {KL_PER_DIM: kl}, found.points, found.images)
