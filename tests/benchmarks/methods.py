"""What replay.py compares: our searcher and scheduler as Tune calls them, Ray's own pair, random search, and what the
best possible early stopping would do.

Ours is the pair that a sweep runs (search.running.tuner.make_search, with a journal on disk).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch as StockSearch
from recording import OBJECTIVES

from search.config.distributions import at_quantile
from search.config.space import Space
from search.config.strategies import NoSchedulerConfig
from search.config.sweep import Sweep
from search.journal.journal import Journal
from search.running.messages import Evaluated, Started, to_result
from search.running.tuner import make_search
from search.storage.place import Place
from search.strategy.stopping import AshaRule
from vaegan_core.evaluation import Evaluation, Outcome

UNLIMITED = 1_000_000
CONTINUE = str(TrialScheduler.CONTINUE)
Truth = Callable[[dict[str, Any]], dict[str, float]]
"""Objectives at full fidelity, without noise."""


class Method(Protocol):
    """A searcher and a scheduler, as Tune would call them."""

    def suggest(self, run: str) -> tuple[str, dict[str, Any]]:
        """Name and parameters of the training to run now: a new one, or one that was stopped and goes on."""

    def report(self, run: str, step: int, metrics: dict[str, float], outcome: Outcome) -> bool:
        """One evaluation of what a run trains; whether it goes on."""


class Ours:
    """Our pair. With `oracle`, early stopping sees how trainings would end, and without noise: nothing stops better."""

    def __init__(self, sweep: Sweep, directory: Path, slots: int, oracle: Truth | None = None) -> None:
        self.journal = Journal.create(directory / "journal.db", id="replay")
        place = Place.of(directory, self.journal)
        self.search, self.scheduler = make_search(sweep, self.journal, place, slots, lambda: False)
        if isinstance(self.search.rule, AshaRule):
            self.search.rule.has_state = lambda _: True
        self.assigned: dict[str, SimpleNamespace] = {}
        if oracle is not None:
            verdict = self.scheduler.rule.verdict
            self.scheduler.rule.verdict = lambda trial, step, metrics: verdict(  # type: ignore[method-assign]
                trial, step, {**metrics, **oracle(self.journal.trial(trial).params)}
            )

    def suggest(self, run: str) -> tuple[str, dict[str, Any]]:
        assignment = self.search.suggest(run)
        assert isinstance(assignment, dict), assignment
        trial = self.assigned[run] = SimpleNamespace(trial_id=run, config=assignment)
        self.scheduler.on_trial_add(None, trial)
        started = to_result(Started(assignment["config"], {}, from_step=0))
        self.scheduler.on_trial_result(None, trial, started)
        return str(assignment["trial"]), self.journal.trial(assignment["trial"]).params

    def report(self, run: str, step: int, metrics: dict[str, float], outcome: Outcome) -> bool:
        return self.receive(run, Evaluation(step, outcome, metrics))

    def receive(self, run: str, evaluation: Evaluation) -> bool:
        result = to_result(Evaluated(evaluation))
        if self.scheduler.on_trial_result(None, self.assigned[run], result) == CONTINUE:
            return True
        self.scheduler.on_trial_complete(None, self.assigned.pop(run), result)
        self.search.on_trial_complete(run, result=result)
        return False


class Stock:
    """A trial that diverges raises, as the trainable of a careful user would; both are told as Tune tells them."""

    def __init__(self, sweep: Sweep, metric: str, seed: int) -> None:
        scheduler: Any = sweep.config.scheduler
        self.search = StockSearch(
            lambda trial: sweep.space.suggest(trial) and None,
            metric=list(OBJECTIVES),
            mode=["min"] * len(OBJECTIVES),
            seed=seed,
        )
        self.scheduler = ASHAScheduler(
            time_attr="step",
            metric=metric,
            mode="min",
            max_t=sweep.steps,
            grace_period=scheduler.min_steps,
            reduction_factor=scheduler.reduction_factor,
        )
        self.trials: dict[str, SimpleNamespace] = {}

    def suggest(self, run: str) -> tuple[str, dict[str, Any]]:
        params = self.search.suggest(run)
        assert params is not None
        self.trials[run] = SimpleNamespace(trial_id=run, config=params)
        self.scheduler.on_trial_add(None, self.trials[run])
        return run, params

    def report(self, run: str, step: int, metrics: dict[str, float], outcome: Outcome) -> bool:
        trial = self.trials[run]
        result = {"step": step, "training_iteration": step} | metrics
        if outcome == "diverged":
            self.scheduler.on_trial_error(None, trial)
            self.search.on_trial_complete(run, error=True)
            return False
        if self.scheduler.on_trial_result(None, trial, result) == CONTINUE:
            self.search.on_trial_result(run, result)
            return True
        self.scheduler.on_trial_complete(None, trial, result)
        self.search.on_trial_complete(run, result=result)
        return False


def random_point(space: Space, rng: np.random.Generator) -> dict[str, Any]:
    """Values of a random configuration, the fixed ones included."""
    return space.assign(lambda _, distribution: at_quantile(distribution, rng.random()))


class Random:
    """Full trainings of random configurations."""

    def __init__(self, sweep: Sweep, seed: int) -> None:
        self.space, self.rng = sweep.space, np.random.default_rng(seed)

    def suggest(self, run: str) -> tuple[str, dict[str, Any]]:
        return run, random_point(self.space, self.rng)

    def report(self, run: str, step: int, metrics: dict[str, float], outcome: Outcome) -> bool:  # noqa: ARG002
        return outcome == "running"


def changed(sweep: Sweep, **parts: dict[str, Any]) -> Sweep:
    """The same sweep with other settings, by part of its configuration."""
    config = sweep.config
    update = {part: getattr(config, part).model_copy(update=settings) for part, settings in parts.items()}
    return replace(sweep, config=config.model_copy(update=update))


def without_stopping(sweep: Sweep) -> Sweep:
    return replace(sweep, config=sweep.config.model_copy(update={"scheduler": NoSchedulerConfig(name="none")}))


OURS, RANDOM = "ours", "random"
STOCK = {f"Ray's pair, ASHA on {name}": name for name in OBJECTIVES}
LADDER = ("random suggestions", "random suggestions, perfect stopping", "ours, no stopping", "ours, perfect stopping")
METHODS = (OURS, *STOCK, *LADDER, RANDOM)


def make_method(name: str, sweep: Sweep, seed: int, directory: Path, slots: int, truth: Truth) -> Method:
    """One of METHODS; `slots` trainings run at a time."""
    sweep = changed(sweep, sampler={"seed": seed}, budget={"trials": UNLIMITED})
    if name in STOCK:
        return Stock(sweep, STOCK[name], seed)
    if name == RANDOM:
        return Random(sweep, seed)
    if name.startswith("random suggestions"):
        sweep = changed(sweep, sampler={"name": "random"})
    if name.endswith("no stopping"):
        sweep = without_stopping(sweep)
    return Ours(sweep, directory, slots, truth if name.endswith("perfect stopping") else None)
