"""The Optuna study of a sweep, rebuilt from its journal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sweeps import make_sweep
from tuning import Tuning, resume, tuning

from search.journal.meta import Meta

LR, BETA = "optimizer.autoencoder.lr", "optimizer.autoencoder.beta1"
BASE = dict(make_sweep().config.base) | {"loss": {"kl": {"control": "fixed", "beta": 1}}}


def bowl(directory: Path, sampler: str) -> Tuning:
    """A sweep over two numbers; the best ones are 0.8 and 0.2."""
    directory.mkdir()
    settings: dict[str, Any] = {
        "space": {LR: {"low": 0.001, "high": 1.0}, BETA: {"low": 0.0, "high": 0.9}},
        "sampler": {"name": sampler, "population": 10},
        "objectives": ["val/pixel_mse"],
        "budget": {"trials": 1000},
    }
    return tuning(directory, 1, base=BASE, scheduler={"name": "none"}, **settings)


def run(t: Tuning, count: int) -> float:
    """Median distance from the best of the next `count` trials."""
    found = []
    for _ in range(count):
        (number,) = t.start()
        params = t.journal.trial(number).params
        found.append(abs(params[LR] - 0.8) + abs(params[BETA] - 0.2))
        t.complete(number, found[-1])
    return float(np.median(found))


@pytest.mark.parametrize("sampler", ["nsga2", "nsga3"])
def test_a_genetic_sampler_keeps_its_population_at_a_resume_and_a_warm_start(tmp_path: Path, sampler: str) -> None:
    t = bowl(tmp_path / "first", sampler)
    first = run(t, 10)
    run(t, 70)
    known = [
        {"params": record.params, "metrics": t.journal.last_metrics(record.number)} for record in t.journal.trials()
    ]
    assert run(resume(t), 9) < 0.5 * first
    other = bowl(tmp_path / "other", sampler)
    other.journal.set_meta(Meta.WARM_START, json.dumps(known))
    assert run(resume(other), 9) < 0.5 * first
