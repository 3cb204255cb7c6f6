"""Questions of simulated sweeps, and trainings whose outcomes depend on levels as planted."""

from __future__ import annotations

import math
from functools import cache
from random import Random
from typing import Any

from sweeps import make_sweep

from search.config.sweep import Sweep
from vaegan_core.config.trial import parse_trial
from vaegan_core.evaluation import LAYOUT_FD, PIXEL_MSE, Evaluation, Outcome, Point
from vaegan_core.strict_yaml import parse_yaml

STEPS = 80
BASE: dict[str, Any] = {
    "frames": "frames",
    "model": {"latent_dim": 4, "width": 8},
    "loss": {"kl": {"control": "fixed", "sigma": 0.3}},
    "train": {"steps": STEPS},
    "evaluate": {"every": 40},
}
SPACE: dict[str, Any] = {
    "optimizer.autoencoder.lr": {"low": 1e-4, "high": 1e-2, "log": True},
    "model.width": [8, 16],
}
NORM: dict[str, Any] = {
    "factor": {"model.encoder.norm": ["batch", "instance"]},
    "outcome": PIXEL_MSE,
    "smallest_effect": 1.25,
}
PRIOR: dict[str, Any] = {
    "factor": {"loss.generator.prior": [0, 0.01], "loss.discriminator.prior": [0, 0.5]},
    "outcome": LAYOUT_FD,
    "smallest_effect": 1.25,
}
SCHEME: dict[str, Any] = {
    "factor": {"train.update": ["joint", "per_term"]},
    "across": {"loss.kl.sigma": [0.1, 0.2, 0.4]},
    "outcome": PIXEL_MSE,
    "smallest_effect": 0.3,
}
EFFECT = 2.0
"""Ratio by which instance norm raises the planted pixel MSE."""


def asking(questions: dict[str, Any], blocks: dict[str, Any] | None = None, **changes: Any) -> Sweep:
    """A sweep that asks `questions` and draws no other trials, unless `changes` say so."""
    data: dict[str, Any] = {
        "base": BASE,
        "space": SPACE,
        "questions": questions,
        "blocks": {"at_most": 16} | (blocks or {}),
        "sampler": {"name": "qmc"},
        "scheduler": {"name": "none"},
        "budget": {"trials": 0},
    }
    return make_sweep(**data | changes)


@cache
def planted(config: str) -> list[Evaluation]:
    """The evaluations of a configuration, always the same: pixel MSE has the planted effect, layout has none."""
    trial = parse_trial(parse_yaml(config))
    block = Random(trial.train.seed)
    level = math.exp(block.gauss(0, 1))
    noise = Random(repr(trial.model_dump(exclude_defaults=True)))  # a key that is new, with its default, changes none
    effect = EFFECT if trial.model.encoder.norm == "instance" else 1.0
    found = []
    for step in range(trial.evaluate.every, trial.train.steps + 1, trial.evaluate.every):
        metrics = {
            PIXEL_MSE: level * effect * math.exp(noise.gauss(0, 0.1)),
            LAYOUT_FD: 10 * level * math.exp(noise.gauss(0, 0.05)),
        }
        outcome: Outcome = "completed" if step == trial.train.steps else "running"
        points = tuple(Point(key, step, value, step) for key, value in metrics.items())
        found.append(Evaluation(step, outcome, metrics, points, {"prior_samples": b"png"}))
    return found
