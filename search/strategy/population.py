"""Population based training: who continues from whose state, with which parameters (Jaderberg et al. 2017, sec. 4).

Trials are compared at equal steps, and a donor's state is that of the very step: each trial keeps its state at every
look at the population, as long as it is among the best there.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from search.config.distributions import at_quantile, count_values, index_of, value_at
from search.config.strategies import PbtConfig, mutable_parameters
from search.config.sweep import Sweep
from search.journal.journal import Journal
from search.journal.lineage import config_after
from search.journal.records import MutationRecord
from search.names import Prefix
from vaegan_core.evaluation import Point

FACTORS = (0.8, 1.25)


class Population:
    """Decides at fixed steps which trials continue from the state of a better one."""

    def __init__(self, sweep: Sweep, journal: Journal) -> None:
        config = sweep.config.scheduler
        assert isinstance(config, PbtConfig)
        self.config = config
        self.sweep = sweep
        self.journal = journal
        (self.metric,) = sweep.stopping_metrics
        self._scores: dict[int, dict[int, float]] = {}  # by step, then by trial
        self._random = random.Random(sweep.config.sampler.seed + journal.next_number())
        self._mutable = mutable_parameters(sweep.space)
        for trial in (trial for trial in journal.trials() if not trial.apart):
            for step, metrics in journal.evaluations(trial.number).items():
                if step % config.every == 0:
                    self._scores.setdefault(step, {})[trial.number] = metrics[self.metric]

    def exploit(self, trial: int, step: int, metrics: dict[str, float]) -> MutationRecord | None:
        """The donor and parameters with which the trial continues after its evaluation at `step`; None: unchanged.

        Once that is on record, the trial's next attempt begins with the donor's state.
        """
        if step % self.config.every or any(record.step == step for record in self.journal.mutations(trial)):
            return None
        scores = self._scores.setdefault(step, {})
        scores[trial] = metrics[self.metric]
        order = sorted(scores, key=lambda number: scores[number])
        size = math.ceil(len(order) * self.config.quantile)
        best, worst = order[:size], order[max(size, len(order) - size) :]
        self._keep(trial, step, best)
        donors = [number for number in best if self.journal.state(number, step)]
        if trial not in worst or not donors:
            return None
        donor = self._random.choice(donors)
        return MutationRecord(trial, step, donor, self._mutated(donor, step))

    def config_of(self, record: MutationRecord) -> str:
        """The full configuration with which the trial continues: the donor's, with its own parameters and seed."""
        return config_after(self.sweep, self.journal, record).to_yaml()

    def _keep(self, trial: int, step: int, best: list[int]) -> None:
        """Keeps the trial's state at `step` for others; no longer the states of trials that are not among the best."""
        if trial in best:
            self.journal.give(trial, step, given=True)
        for number in self._scores[step].keys() - set(best):
            self.journal.give(number, step, given=False)

    def _params(self, trial: int, step: int) -> dict[str, Any]:
        """Parameters with which a trial came to a step, from which it may have gone on since."""
        mutations = [record for record in self.journal.mutations(trial) if record.step < step]
        return mutations[-1].params if mutations else self.journal.trial(trial).params

    def _mutated(self, donor: int, step: int) -> dict[str, Any]:
        params = self._params(donor, step)
        return {
            name: self._changed(self._mutable[name], value) if name in self._mutable else value
            for name, value in params.items()
        }

    def _changed(self, distribution: BaseDistribution, value: Any) -> Any:
        if self._random.random() < self.config.resample:
            return at_quantile(distribution, self._random.random())
        if isinstance(distribution, CategoricalDistribution):
            return value
        count = count_values(distribution)
        if not math.isinf(count):
            at = index_of(distribution, value) + self._random.choice((-1, 1))
            return value_at(distribution, min(max(at, 0), int(count) - 1))
        assert isinstance(distribution, FloatDistribution)
        return min(max(value * self._random.choice(FACTORS), distribution.low), distribution.high)


def param_points(params: Mapping[str, Any], step: int, time: int) -> list[Point]:
    """A curve point per number among a trial's parameters, which change along the way; `time` in milliseconds."""
    numbers = {name: value for name, value in params.items() if isinstance(value, int | float)}
    return [Point(f"{Prefix.PARAM}{name}", step, float(value), time) for name, value in numbers.items()]
