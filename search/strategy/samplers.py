"""Optuna's samplers by name; those that build a model are shown the evidence of a sweep instead of its study."""

from __future__ import annotations

import math
import warnings
from collections.abc import Container
from typing import Any

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
from search.strategy.evidence import Evidence

GOOD_SHARE = 0.1
MOST_GOOD = 25
"""TPE's good trials: this share of those it knows, and at most MOST_GOOD (Bergstra et al. 2011; Optuna's numbers)."""


def make_sampler(config: SamplerConfig, evidence: Evidence, num_objectives: int = 1) -> BaseSampler:
    """Optuna's sampler by name. A resumed sweep must not repeat its first draws, so the seed moves with the evidence.

    TPE looks at each parameter by itself where there are several objectives: together, with groups, it locked a third
    of replayed sweeps into a poor region (tests/benchmarks/replay.py).
    `qmc` and `grid` fix every value before they ask (designs.py), so what they ask does not matter.
    """
    seed = config.seed + evidence.num_trials
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.simplefilter("ignore", FutureWarning)
        match config.name:
            case "tpe":
                together = num_objectives == 1
                return Informed(
                    TPESampler(
                        seed=seed,
                        n_startup_trials=0,
                        multivariate=together,
                        group=together,
                        constant_liar=True,
                        gamma=lambda count: min(math.ceil(GOOD_SHARE * count), MOST_GOOD, evidence.num_compared),
                    ),
                    evidence,
                )
            case "gp":
                return Informed(GPSampler(seed=seed, n_startup_trials=1), evidence)
            case "cmaes":
                return Informed(CmaEsSampler(seed=seed, n_startup_trials=1, warn_independent_sampling=False), evidence)
            case "nsga2":
                return NSGAIISampler(seed=seed, population_size=config.population)
            case "nsga3":
                return NSGAIIISampler(seed=seed, population_size=config.population)
    return RandomSampler(seed=seed)


class Informed(BaseSampler):
    """A sampler that is shown the evidence wherever it would look at the study's trials."""

    def __init__(self, sampler: BaseSampler, evidence: Evidence) -> None:
        self._sampler = sampler
        self._evidence = evidence
        self._seen: tuple[int, Any] = (-1, None)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._sampler.infer_relative_search_space(self._shown(study, trial), trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._sampler.sample_relative(self._shown(study, trial), trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._sampler.sample_independent(self._shown(study, trial), trial, param_name, param_distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._sampler.before_trial(study, trial)

    def _shown(self, study: optuna.Study, trial: FrozenTrial) -> Any:
        if self._seen[0] != trial.number:
            self._evidence.refresh()
            self._seen = trial.number, _Shown(study, self._evidence.trials(study))
        return self._seen[1]


class _Shown:
    """A study with other trials."""

    def __init__(self, study: optuna.Study, trials: list[FrozenTrial]) -> None:
        self._study = study
        self._trials = trials

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        del deepcopy, use_cache
        return [trial for trial in self._trials if states is None or trial.state in states]

    def get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        return self._get_trials(deepcopy, states)
