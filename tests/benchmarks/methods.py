"""What replay.py compares: our searcher and scheduler as Tune calls them, also with right and with wrong priors, Ray's
own pair, Optuna's own pruner, random search, and what early stopping would do that knows every end.

Ours is the pair that a sweep runs (search.running.tuner.make_search, with a journal on disk).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers._tpe import sampler as tpe
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch as StockSearch
from recording import OBJECTIVES

from search.config.distributions import at_quantile, quantile_of
from search.config.space import Branch, Fixed, Node, Prior, Space
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


def split_once() -> None:
    """Has Optuna's TPE divide trials into good and others once a suggestion, not again for each of its parameters: the
    same suggestions in half of the time. `_split_trials` is private to Optuna (5.0)."""
    split = tpe._split_trials
    last: tuple[Any, list[Any], Any] = (None, [], None)

    def split_or_remember(study: Any, trials: list[Any], n_below: int) -> Any:
        nonlocal last
        key = n_below, tuple(map(id, trials))
        if last[0] != key:
            last = key, trials, split(study, trials, n_below)
        return last[2]

    tpe._split_trials = split_or_remember


class Ours:
    """Our pair. With `oracle`, early stopping sees how trainings would end, and without noise. A journal that need not
    be `durable` does not wait for the disk."""

    def __init__(
        self, sweep: Sweep, directory: Path, slots: int, oracle: Truth | None = None, *, durable: bool = True
    ) -> None:
        self.journal = Journal.create(directory / "journal.db", id="replay")
        if not durable:
            self.journal.db.execute("PRAGMA synchronous = OFF")
        place = Place.of(directory, self.journal)
        self.search, self.scheduler = make_search(sweep, self.journal, place, slots, lambda: False)
        if isinstance(self.search.rule, AshaRule):
            self.search.rule.has_state = lambda _: True
        self.assigned: dict[str, SimpleNamespace] = {}
        if oracle is not None:
            verdict = self.scheduler.rule.verdict
            end = cache(lambda trial: oracle(self.journal.trial(trial).params))
            self.scheduler.rule.verdict = lambda trial, step, metrics: verdict(  # type: ignore[method-assign]
                trial, step, {**metrics, **end(trial)}
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


class Pruned:
    """Optuna alone: its TPE and its MedianPruner, on the product of the objectives: it prunes by one value only."""

    def __init__(self, sweep: Sweep, seed: int) -> None:
        scheduler: Any = sweep.config.scheduler
        self.space = sweep.space
        self.study = optuna.create_study(
            sampler=optuna.samplers.TPESampler(seed=seed, constant_liar=True),
            pruner=optuna.pruners.MedianPruner(n_warmup_steps=scheduler.min_steps - 1),
        )
        self.trials: dict[str, optuna.trial.Trial] = {}

    def suggest(self, run: str) -> tuple[str, dict[str, Any]]:
        self.trials[run] = self.study.ask()
        return run, self.space.suggest(self.trials[run])

    def report(self, run: str, step: int, metrics: dict[str, float], outcome: Outcome) -> bool:
        trial = self.trials[run]
        if outcome == "diverged":
            self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
            return False
        value = math.prod(metrics.values())
        trial.report(value, step)
        if outcome == "completed":
            self.study.tell(trial, value)
        elif trial.should_prune():
            self.study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            return True
        return False


def random_point(space: Space, rng: np.random.Generator) -> dict[str, Any]:
    """Values of a random configuration, the fixed ones included."""
    return space.assign(lambda _, distribution: at_quantile(distribution, rng.random()))


class Random:
    """Full trainings of random configurations."""

    def __init__(self, sweep: Sweep, seed: int) -> None:
        self.space, self.rng = sweep.space, np.random.default_rng([seed, UNLIMITED])  # no trial's noise

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


PRIORS = {
    "optimizer.autoencoder.lr": Prior(value=2e-3, sure="medium"),
    "loss.feature.recon": Prior(value=0.1, sure="low"),
    "loss.generator.recon": Prior(value=0.01, sure="low"),
    "loss.generator.prior": Prior(value=0.01, sure="low"),
    "model.encoder.norm": Prior(value="batch", sure="medium"),
    "model.decoder.norm": Prior(value="group", sure="low"),
    "loss.kl.control": Prior(value="fixed", sure="low"),
    "loss.kl.estimator": Prior(value="full_batch", sure="medium"),
}
"""What demo.yaml and full.yaml believe; they were written before anything was recorded."""


def opposite(distribution: BaseDistribution, prior: Prior) -> Prior:
    """The farther end of a range, or another choice; believed as firmly."""
    if isinstance(distribution, CategoricalDistribution):
        value = next(choice for choice in distribution.choices if choice != prior.value)
    else:
        value = at_quantile(distribution, 0.0 if quantile_of(distribution, prior.value) > 0.5 else 1.0)
    return Prior(value=value, sure=prior.sure)


def with_priors(sweep: Sweep, priors: Mapping[str, Prior]) -> Sweep:
    """The same sweep, with these beliefs by name of the parameter."""

    def believed(node: Node) -> Node:
        match node:
            case Fixed():
                return node
            case Branch(name, options, _):
                inner = {option: tuple(map(believed, nodes)) for option, nodes in options.items()}
                return Branch(name, inner, priors.get(name))
        return replace(node, prior=priors.get(node.name))

    return replace(sweep, space=Space(tuple(map(believed, sweep.space.nodes))))


OURS, RANDOM = "ours", "random"
BELIEVING, MISLED = "ours, with the priors of demo.yaml and full.yaml", "ours, with the opposite priors"
PRUNED = "Optuna's TPE and MedianPruner, on the objectives' product"
STOCK = {f"Ray's pair, ASHA on {name}": name for name in OBJECTIVES}
CEILING = "random suggestions, perfect stopping"
LADDER = ("random suggestions", CEILING, "ours, no stopping", "ours, perfect stopping")
METHODS = (OURS, BELIEVING, MISLED, *STOCK, PRUNED, *LADDER, RANDOM)


def make_method(name: str, sweep: Sweep, seed: int, directory: Path, slots: int, truth: Truth) -> Method:
    """One of METHODS; `slots` trainings run at a time."""
    sweep = changed(sweep, sampler={"seed": seed}, budget={"trials": UNLIMITED})
    if name in STOCK:
        return Stock(sweep, STOCK[name], seed)
    if name == PRUNED:
        return Pruned(sweep, seed)
    if name == RANDOM:
        return Random(sweep, seed)
    if name == BELIEVING:
        sweep = with_priors(sweep, PRIORS)
    if name == MISLED:
        known = sweep.space.parameters()
        sweep = with_priors(sweep, {key: opposite(known[key], prior) for key, prior in PRIORS.items()})
    if name.startswith("random suggestions"):
        sweep = changed(sweep, sampler={"name": "random"})
    if name.endswith("no stopping"):
        sweep = without_stopping(sweep)
    return Ours(sweep, directory, slots, truth if name.endswith("perfect stopping") else None, durable=False)
