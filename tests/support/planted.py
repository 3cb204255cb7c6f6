"""Sweeps as MLflow would give them back, with what is true of them planted: no store, no training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sweeps import BASELINES, make_sweep

from search.config.sweep import Sweep
from search.names import Outcome
from search.report.health import Facts
from search.tracking.evaluations import Row, collect
from search.tracking.reader import SweepRun, TrialRun
from vaegan_core.evaluation import LAYOUT_FD, PIXEL_MSE

STEPS = 480
LR, WIDTH, KL, SIGMA = "optimizer.autoencoder.lr", "model.width", "loss.kl.control", "loss.kl.sigma"


@dataclass(frozen=True)
class Planted:
    """One trial, or a replicate of one."""

    params: Mapping[str, Any]
    curve: Mapping[int, tuple[float, float]]
    """(pixel MSE, layout FD) by step."""
    outcome: str = Outcome.COMPLETED
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    host: str = "a"
    seconds: float = 1.0
    """Time of each evaluation."""
    replicate_of: int | None = None


def planted(trials: Sequence[Planted], plan: Sweep | None = None, **metrics: float) -> Facts:
    """A sweep of the two default objectives with these trials, numbered from 0 and completed at step 480."""
    rows, runs = [], []
    for number, each in enumerate(trials):
        for step, (mse, fd) in each.curve.items():
            values = {PIXEL_MSE: mse, LAYOUT_FD: fd}
            rows.append(Row(number, step, each.seconds, each.host, each.replicate_of, values))
        if each.replicate_of is None:
            runs.append(_run(number, each))
    sweep = SweepRun("parent", "toy", "1", (PIXEL_MSE, LAYOUT_FD), BASELINES, metrics, {}, tuple(runs))
    return Facts(sweep, collect(rows), plan or make_sweep(budget={"trials": max(1, len(runs))}))


def _run(number: int, each: Planted) -> TrialRun:
    final: dict[str, float] = {}
    if each.curve:
        last = max(each.curve)
        final = {
            "final/step": float(last),
            f"final/{PIXEL_MSE}": each.curve[last][0],
            f"final/{LAYOUT_FD}": each.curve[last][1],
        }
    tags = {"host": each.host, "device": "cpu", "outcome": each.outcome, **each.tags}
    params = {name: str(value) for name, value in each.params.items()}
    return TrialRun(f"run{number}", number, each.outcome, params, final | dict(each.metrics), tags)


def drawn(random: np.random.Generator) -> dict[str, Any]:
    """Parameters drawn from the space of tests/support/sweeps.py, as a random sampler would."""
    params = {LR: 10 ** random.uniform(-4, -2), WIDTH: random.choice([8, 16]), KL: random.choice(["fixed", "capacity"])}
    if params[KL] == "fixed":
        return params | {SIGMA: 0.05 * 12 ** random.random()}
    return params | {"loss.kl.capacity_max": random.uniform(10, 150)}


def flat_curve(random: np.random.Generator, offset: float = 0.0, steps: Sequence[int] = (120, 240, 480)) -> Any:
    """A curve whose values are noise around a level; `offset` makes them worse."""
    return {step: (0.1 + offset + 0.01 * random.random(), 50.0 + 100 * offset + random.random()) for step in steps}
