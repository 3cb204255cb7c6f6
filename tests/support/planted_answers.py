"""A finished sweep with questions in MLflow without a sweep: two questions that share their trials, one across values,
with pictures, curves and divergences."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from mlflow import MlflowClient
from planted_store import STEPS, Plant, fill, planned, plant, write_evaluations

from search.names import Artifact, Outcome, Tag
from search.questions.looks import planned_looks
from search.tracking.client import open_client
from vaegan_core.evaluation import KL, LAYOUT_FD, PIXEL_MSE

LR, WIDTH, SIGMA = "optimizer.autoencoder.lr", "model.width", "loss.kl.sigma"
RATIO = 1.5
"""By which instance norm raises the pixel MSE on average; the more, the higher the learning rate."""
LOOKS = planned_looks(8, 24)
NORM: dict[str, Any] = {
    "name": "instance-norm",
    "hash": "a" * 64,
    "registered": "2026-11-27T00:00:00+00:00",
    "text": "instance-norm:\n  factor:\n    model.encoder.norm: [batch, instance]\n  outcome: val/pixel_mse\n",
    "levels": ["batch norm", "instance norm"],
    "outcome": PIXEL_MSE,
    "metric": PIXEL_MSE,
    "slope": False,
    "smallest_effect": 1.25,
    "scale": "ratio",
    "across": None,
    "crossed": [],
    "nuisances": [LR, WIDTH],
    "group": 0,
    "looks": list(LOOKS),
    "steps": STEPS[-1],
    "asked": True,
}
PRIOR = NORM | {
    "name": "prior-samples",
    "levels": ["without", "<b>with</b> prior samples"],
    "outcome": LAYOUT_FD,
    "metric": LAYOUT_FD,
}
SCHEME = NORM | {
    "name": "scheme",
    "levels": ["joint", "per_term"],
    "outcome": KL,
    "metric": KL,
    "scale": "difference",
    "smallest_effect": 0.1,
    "across": SIGMA,
    "group": 1,
}
GROWTH = NORM | {
    "name": "growth",
    "levels": ["batch norm", "instance norm", "group norm"],
    "outcome": f"the slope of {KL}",
    "metric": KL,
    "slope": True,
    "scale": "difference",
    "smallest_effect": 0.3,
    "group": 2,
}
QUESTIONS = (NORM, PRIOR, SCHEME, GROWTH)


@dataclass(frozen=True)
class PlantedAnswers:
    """What is planted."""

    name: str = "asked"
    blocks: int = 24
    trials: int = 0
    """Trials of a sampler, beside those of blocks."""
    pictures: bool = True
    seed: int = 0


def plant_answers(uri: str, what: PlantedAnswers) -> str:
    """Id of the parent run of the sweep, in the SQLite store at `uri`."""
    own = Plant(what.name, what.trials, pictures=what.pictures, seed=what.seed)
    parent = plant(uri, own)
    client = open_client(uri)
    client.log_text(parent, json.dumps(QUESTIONS), Artifact.QUESTIONS)
    trials = list(_trials(what))
    write_evaluations(client, parent, [*planned(own), *trials])
    fill(uri, parent, own, trials)
    return parent


def _trials(what: PlantedAnswers) -> Iterator[dict[str, Any]]:
    random, number = np.random.default_rng(what.seed), what.trials
    for block in range(what.blocks):
        lr, width = float(10 ** random.uniform(-4, -2)), int(random.choice([8, 16]))
        for levels, across in _cells():
            params = {LR: lr, WIDTH: width} | ({SIGMA: across} if across else {})
            diverged = levels.get("instance-norm", 0) == 1 and levels["prior-samples"] == 1 and block % 9 == 4
            curves = {} if diverged else _curves(lr, width, levels, across, random)
            yield {
                "number": number,
                "outcome": Outcome.DIVERGED if diverged else Outcome.COMPLETED,
                "params": params,
                "evaluations": curves,
                "tags": {
                    Tag.BLOCK: str(block),
                    Tag.LEVELS: json.dumps(levels),
                    **({Tag.ACROSS: json.dumps(dict.fromkeys(levels, across))} if across else {}),
                },
            }
            number += 1


def _cells() -> Iterator[tuple[dict[str, int], float]]:
    """Levels of the trials of a block, and the value that they run at."""
    for norm, prior in product((0, 1), repeat=2):
        yield {"instance-norm": norm, "prior-samples": prior}, 0.0
    for scheme, sigma in product((0, 1), (0.1, 0.2, 0.4)):
        yield {"scheme": scheme}, sigma
    for norm in range(3):
        yield {"growth": norm}, 0.0


def _curves(
    lr: float, width: int, levels: Mapping[str, int], across: float, random: np.random.Generator
) -> dict[int, dict[str, float]]:
    off = abs(np.log10(lr) + 3)
    raised = RATIO ** (levels.get("instance-norm", 0) * (1 + 0.6 * (np.log10(lr) + 3)))
    mse = (0.03 + 0.05 * off) * raised * np.exp(0.08 * random.normal())
    layout = (60 - width + 15 * off) * np.exp(0.1 * random.normal())
    kl = 20 * (across or 1) ** (-0.5 - 0.05 * levels.get("scheme", 0)) * np.exp(0.05 * random.normal())
    grows = 0.2 + (0.0, 0.9, 0.05)[levels.get("growth", 0)] + 0.05 * random.normal()
    return {
        step: {
            PIXEL_MSE: mse * (1 + 60 / step),
            LAYOUT_FD: layout * (1 + 60 / step),
            KL: kl * (step / STEPS[-1]) ** grows,
        }
        for step in STEPS
    }


def make_client(directory: Path, what: PlantedAnswers) -> MlflowClient:
    """A client of a new store in `directory` with the sweep."""
    uri = f"sqlite:///{directory}/mlflow.db"
    plant_answers(uri, what)
    return open_client(uri)
