"""Optuna's study of a sweep, and what Optuna is told of each outcome.

    completed -> COMPLETE with the objectives at full fidelity
    pruned    -> PRUNED, with every intermediate value where there is one objective (Optuna refuses them with several)
    diverged  -> PRUNED with a violated constraint, which teaches TPE to stay away; FAIL would teach it nothing
    failed    -> FAIL
    interrupted, running -> RUNNING, until they are taken up again

It lives in memory and is rebuilt from the journal. Its trials are the known points of earlier sweeps, then the
journal's trials in order.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIIISampler,
    NSGAIISampler,
    RandomSampler,
    TPESampler,
)
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.config.strategies import SamplerConfig
from search.config.sweep_config import Sweep
from search.journal.journal import Journal, TrialRecord
from search.standings.pareto import places

DIVERGED_CONSTRAINT = "diverged"
WARM_START = "warm_start"
"""Key of the journal's meta: results of earlier sweeps, a JSON list of {params, metrics}."""
MOST_TOLD = 800
"""Trials up to which TPE looks at all of them; above, at half as many pruned ones, half as many of the newest completed
ones, and the best."""
BEST_TOLD = 200
STATES = {
    "completed": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "diverged": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "interrupted": TrialState.RUNNING,
    "running": TrialState.RUNNING,
}


def make_sampler(config: SamplerConfig, num_told: int = 0, num_objectives: int = 1) -> BaseSampler:
    """Optuna's sampler by name; after a resume it must not repeat its first draws, so the seed moves with `num_told`.

    TPE looks at each parameter by itself where there are several objectives: together, with groups, it locked a third
    of replayed sweeps into a poor region (tests/benchmarks/replay.py).
    `qmc` and `grid` fix every value before they ask (designs.py), so what they ask does not matter.
    """
    seed = config.seed + num_told
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match config.name:
            case "tpe":
                together = num_objectives == 1
                return RecentTPE(
                    seed=seed,
                    n_startup_trials=config.startup_trials,
                    multivariate=together,
                    group=together,
                    constant_liar=True,
                )
            case "gp":
                return GPSampler(seed=seed, n_startup_trials=config.startup_trials)
            case "cmaes":
                return CmaEsSampler(seed=seed, n_startup_trials=config.startup_trials, warn_independent_sampling=False)
            case "nsga2":
                return NSGAIISampler(seed=seed, population_size=config.population)
            case "nsga3":
                return NSGAIIISampler(seed=seed, population_size=config.population)
    return RandomSampler(seed=seed)


class RecentTPE(TPESampler):
    """TPE over the best and the newest completed trials, and the newest of the others: so that an ask costs about the
    same however many there are. Up to so many it is Optuna's."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._seen: tuple[int, list[FrozenTrial]] = (-1, [])
        self._best: list[FrozenTrial] = []
        self._ranked: set[int] = set()

    def infer_relative_search_space(self, study: Any, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return super().infer_relative_search_space(self._of(study, trial), trial)

    def sample_relative(
        self, study: Any, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return super().sample_relative(self._of(study, trial), trial, search_space)

    def sample_independent(
        self, study: Any, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return super().sample_independent(self._of(study, trial), trial, param_name, param_distribution)

    def _of(self, study: Any, trial: FrozenTrial) -> Any:
        if self._seen[0] != trial.number:
            self._seen = trial.number, self._known(study._get_trials(deepcopy=False, use_cache=False))
        return _SomeTrials(study, self._seen[1])

    def _known(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        if len(trials) <= MOST_TOLD:
            return list(trials)
        complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        new = [trial for trial in complete if trial.number not in self._ranked]
        for start in range(0, len(new), MOST_TOLD):
            self._best = best_trials([*self._best, *new[start : start + MOST_TOLD]], BEST_TOLD)
        self._ranked |= {trial.number for trial in new}
        chosen = {trial.number: trial for trial in (*self._best, *complete[-MOST_TOLD // 2 :])}
        pruned = [trial for trial in trials if trial.state == TrialState.PRUNED][-MOST_TOLD // 2 :]
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        return sorted([*chosen.values(), *pruned, *running], key=lambda trial: trial.number)


class _SomeTrials:
    """A study that knows some of its trials only."""

    def __init__(self, study: optuna.Study, trials: list[FrozenTrial]) -> None:
        self._study = study
        self._some = trials

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        del deepcopy, use_cache
        return [trial for trial in self._some if states is None or trial.state in states]

    def get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        return self._get_trials(deepcopy, states)


def best_trials(trials: Sequence[FrozenTrial], count: int) -> list[FrozenTrial]:
    """So many of the best, front by front, less crowded ones first."""
    order = np.argsort(places(np.array([trial.values for trial in trials])), kind="stable")
    return [trials[index] for index in order[:count]]


def build_study(sweep: Sweep, journal: Journal, storage: BaseStorage | None = None) -> optuna.Study:
    """Optuna's study of everything in the journal, in memory unless a storage is given."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    records = journal.trials()
    study = optuna.create_study(
        study_name=sweep.config.name,
        storage=storage,
        sampler=make_sampler(sweep.config.sampler, len(records), len(sweep.config.objectives)),
        directions=["minimize"] * len(sweep.config.objectives),
    )
    for known in warm_start(journal):
        study.add_trial(_known_point(sweep, known))
    for record in records:
        study.add_trial(_frozen(sweep, journal, record))
    return study


def warm_start(journal: Journal) -> list[dict[str, Any]]:
    """Results of earlier sweeps that this one began with: params and metrics of each."""
    known: list[dict[str, Any]] = json.loads(journal.meta(WARM_START, "[]"))
    return known


def _known_point(sweep: Sweep, known: Mapping[str, Any]) -> FrozenTrial:
    params, distributions = _searched(sweep.space.parameters(), known["params"])
    return create_trial(
        state=TrialState.COMPLETE,
        values=[known["metrics"][name] for name in sweep.config.objectives],
        params=params,
        distributions=distributions,
        user_attrs={"outcome": "completed", "origin": "an earlier sweep"},
        constraints=constraint_values(sweep, "completed", known["metrics"]),
    )


def _frozen(sweep: Sweep, journal: Journal, record: TrialRecord) -> FrozenTrial:
    params, distributions = _searched(sweep.space.parameters(), record.params)
    state = STATES[record.outcome]
    intermediate = intermediate_values(sweep.config.objectives, journal, record) if state.is_finished() else {}
    values = None
    if state == TrialState.COMPLETE:
        values = final_values(sweep.config.objectives, journal, record)
    elif state == TrialState.PRUNED and intermediate:
        values = [intermediate[max(intermediate)]]  # What Optuna itself gives a pruned trial
    return create_trial(
        state=state,
        values=values,
        params=params,
        distributions=distributions,
        user_attrs={"outcome": record.outcome, "origin": record.origin},
        intermediate_values=intermediate,
        constraints=constraint_values(sweep, record.outcome, journal.last_metrics(record.number))
        if state.is_finished()
        else None,
    )


def _searched(
    distributions: Mapping[str, BaseDistribution], params: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
    names = [name for name in params if name in distributions]
    return {name: params[name] for name in names}, {name: distributions[name] for name in names}


def final_values(objectives: Sequence[str], journal: Journal, record: TrialRecord) -> list[float]:
    metrics = journal.evaluations(record.number)[record.step]
    return [metrics[name] for name in objectives]


def intermediate_values(objectives: Sequence[str], journal: Journal, record: TrialRecord) -> dict[int, float]:
    if len(objectives) > 1:
        return {}
    return {step: metrics[objectives[0]] for step, metrics in journal.evaluations(record.number).items()}


def constraint_values(sweep: Sweep, outcome: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """By how much each constraint is violated, at most 0 where it holds; those on metrics only once there are any."""
    if sweep.config.sampler.name == "cmaes":  # it warns of every constraint that it does not use
        return {}
    found = {DIVERGED_CONSTRAINT: 1.0 if outcome == "diverged" else -1.0}
    if metrics:
        texts = sweep.config.constraints
        found |= {text: each.violation(metrics) for text, each in zip(texts, sweep.constraints, strict=True)}
    return found
