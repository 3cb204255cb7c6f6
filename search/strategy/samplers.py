"""Optuna's samplers by name, and a TPE whose cost does not grow with the number of trials."""

from __future__ import annotations

import warnings
from collections.abc import Container, Sequence
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
from optuna.trial import FrozenTrial, TrialState

from search.config.strategies import SamplerConfig
from search.standings.pareto import places

MOST_TOLD = 800
"""Number of trials up to which TPE sees all of them. Above it, TPE sees the best and the newest completed trials and
the newest pruned ones, half this number of each kind at most."""
BEST_TOLD = 200


def make_sampler(config: SamplerConfig, num_told: int = 0, num_objectives: int = 1) -> BaseSampler:
    """Optuna's sampler by name. A resumed sweep must not repeat its first draws, so the seed moves with `num_told`.

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
    """Optuna's TPE, but beyond MOST_TOLD trials it sees only the best and newest, so that an ask costs about the same
    however many trials there are."""

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
    """A study that shows only some of its trials."""

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
    """The best `count` trials, front by front, less crowded ones first."""
    order = np.argsort(places(np.array([trial.values for trial in trials])), kind="stable")
    return [trials[index] for index in order[:count]]
