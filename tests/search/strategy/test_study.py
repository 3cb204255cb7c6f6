"""The Optuna study of a sweep, rebuilt from its journal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.storages import RDBStorage
from sweeps import evaluation, make_sweep, with_kl
from tuning import Tuning, resume, tuning

from search.journal.meta import Meta
from search.strategy.study import build_study
from vaegan_core.evaluation import KL_PER_DIM, LAYOUT_FD, PIXEL_MSE

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


def test_a_study_that_is_exported_says_of_each_trial_where_it_came_from_and_how_it_ended(tmp_path: Path) -> None:
    text = "val/kl_per_dim <= 1"
    t = tuning(tmp_path, constraints=[text])
    params = {LR: 1e-3, "model.width": 8, "loss.kl.control": "fixed", "loss.kl.sigma": 0.2}
    metrics = {PIXEL_MSE: 0.1, LAYOUT_FD: 2.0, KL_PER_DIM: 3.0}
    t.journal.set_meta(Meta.WARM_START, json.dumps([{"params": params, "metrics": metrics}]))
    for number, kl in zip(t.start(2), (0.5, 1.25), strict=True):
        t.report(number, with_kl(480, 0.1, 5, kl=kl))
    (diverged,) = t.start()
    t.report(diverged, evaluation(40, outcome="diverged", reason="train/kl is nan at step 40"))
    t.start()
    storage = RDBStorage(f"sqlite:///{tmp_path}/optuna.db")
    build_study(t.sweep, t.journal, storage)
    study = optuna.load_study(study_name="toy", storage=storage)
    ends = [(trial.user_attrs["outcome"], trial.state.name, trial.constraints) for trial in study.trials]
    assert ends == [
        ("completed", "COMPLETE", {"diverged": -1.0, text: 2.0}),
        ("completed", "COMPLETE", {"diverged": -1.0, text: -0.5}),
        ("completed", "COMPLETE", {"diverged": -1.0, text: 0.25}),
        ("diverged", "PRUNED", {"diverged": 1.0}),
        ("running", "RUNNING", {}),
    ]
    origins = [trial.user_attrs["origin"] for trial in study.trials]
    assert origins == ["an earlier sweep", *(record.origin for record in t.journal.trials())]


def test_cmaes_is_told_of_no_constraints(tmp_path: Path) -> None:
    t = bowl(tmp_path / "cmaes", "cmaes")
    run(t, 1)
    assert t.told(0).constraints == {}
