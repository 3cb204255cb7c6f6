"""What a sampler that builds a model learns from: all trials at equal steps, derived from the journal at every ask.

The record says how trials ended; a model needs values that can be compared, of as many trials as possible. It sees the
objectives at the highest level (a rung, or the last step) that MIN_TRIALS trials have reached, wherever those trials
are by now, as in BOHB (Falkner et al. 2018, alg. 2) and SMAC3. Lower levels count only until then.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.config.sweep import Sweep
from search.journal.journal import Journal
from search.journal.records import TrialRecord
from search.names import FINAL_OUTCOMES, INFEASIBLE_OUTCOMES, TIMES, UNFINISHED_OUTCOMES, Outcome
from search.standings.pareto import places
from search.strategy.study import constraint_values, searched
from search.strategy.warm_start import warm_start

MIN_TRIALS = 12
"""Trials that a level needs before the model looks at it instead of a lower one."""
MOST_TOLD = 800
"""Trials up to which a model sees all of them. Above it, it sees the best and the newest, so that an ask costs about
the same however many there are."""
BEST_TOLD = 200

BEST_PART = 3
"""A trial is good as long as it is among the best 1/BEST_PART."""

NO_VALUES = "ended before it could be compared"
"""Constraint that such a trial violates."""

Metrics = Mapping[str, float]


@dataclass
class Seen:
    """What is known of one trial."""

    params: Mapping[str, Any]
    outcome: Outcome
    origin: str = ""
    replicates: list[Seen] = field(default_factory=list)
    step: int = -1
    """Step of the last evaluation that was read."""
    last: Metrics = field(default_factory=dict)
    """That evaluation's metrics."""
    levels: dict[int, Metrics] = field(default_factory=dict)
    """Metrics of the first evaluation at or after each level that the trial has reached."""

    def learn(self, evaluations: Mapping[int, Metrics], levels: Sequence[int]) -> None:
        for step, metrics in evaluations.items():
            self.step, self.last = step, metrics
            for level in levels:
                if step >= level:
                    self.levels.setdefault(level, metrics)

    def values(self, level: int, objectives: Sequence[str]) -> list[float]:
        """Objectives at a level: the mean of the trial and of its replicates that have come as far."""
        seeds = [each.levels[level] for each in (self, *self.replicates) if level in each.levels]
        return [statistics.fmean(metrics[name] for metrics in seeds) for name in objectives]


@dataclass(frozen=True)
class Standing:
    """Trials by whether they are among the best 1/BEST_PART of those at the present level; who ended before is not."""

    good: list[Seen]
    others: list[Seen]

    def count(self, arm: str) -> tuple[int, int]:
        """Number of good and of other trials that an arm proposed; a named point is one of those near it."""
        good, others = (
            sum(each.origin.partition(TIMES)[0] in (arm, arm.removeprefix("near ")) for each in part)
            for part in (self.good, self.others)
        )
        return good, others


class Evidence:
    """Every trial of a sweep, and of earlier sweeps that it began with, as a model should see it."""

    def __init__(self, sweep: Sweep, journal: Journal) -> None:
        self.sweep = sweep
        self.journal = journal
        self._seen: dict[int, Seen] = {}
        self._trials: list[tuple[int, Seen]] = []
        """Known points and the trials of this sweep, without replicates, by number in the Optuna study."""
        self._unfinished: set[int] = set()
        self._shown: dict[int, tuple[object, FrozenTrial]] = {}
        self.num_compared = 0
        """Trials that the last call of `trials` showed with values."""
        self._trials += enumerate(self._known_point(known) for known in warm_start(journal))
        self._first = len(self._trials)
        self._in_study = 0
        """Trials of this sweep in the study: all but those of blocks."""
        for record in journal.trials():
            self._read(record)

    # --- Reading ------------------------------------------------------------------------------------------------------

    def tell(self, number: int) -> None:
        """A trial has ended, perhaps for the second time since the last refresh."""
        self._unfinished.add(number)

    def refresh(self) -> None:
        """Reads what is new in the journal: new trials, those that are unfinished or were at the last refresh, and
        those that ended since."""
        unfinished = {record.number: record for record in self.journal.trials(*UNFINISHED_OUTCOMES)}
        new = range(len(self._seen), self.journal.next_number())
        changed = sorted({*self._unfinished, *unfinished, *new})
        self._unfinished = set(unfinished)
        for number in changed:
            self._read(unfinished.get(number) or self.journal.trial(number))

    def _read(self, record: TrialRecord) -> None:
        seen = self._seen.get(record.number)
        if seen is None:
            seen = self._seen[record.number] = Seen(record.params, record.outcome, record.origin)
            if record.block is not None:
                return
            if record.replicate_of is None:
                self._trials.append((self._first + self._in_study, seen))
            else:
                self._seen[record.replicate_of].replicates.append(seen)
            self._in_study += 1
        seen.outcome = record.outcome
        seen.learn(self.journal.evaluations(record.number, after=seen.step), self.sweep.levels)
        if record.outcome in UNFINISHED_OUTCOMES:
            self._unfinished.add(record.number)

    def _known_point(self, known: Mapping[str, Any]) -> Seen:
        seen = Seen(known["params"], Outcome.COMPLETED)
        evaluations = {int(step): metrics for step, metrics in known.get("evaluations", {}).items()}
        seen.learn(evaluations | {self.sweep.steps: known["metrics"]}, self.sweep.levels)
        return seen

    # --- What it says -------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Number of trials that have something to say: a value at the first level, or an infeasible end."""
        first = self.sweep.levels[0]
        return sum(first in seen.levels or seen.outcome in INFEASIBLE_OUTCOMES for _, seen in self._trials)

    @property
    def num_known(self) -> int:
        """Trials of earlier sweeps."""
        return self._first

    @property
    def num_trials(self) -> int:
        """Trials of this sweep, replicates included."""
        return len(self._seen)

    @property
    def level(self) -> int:
        """The steps at which trials are compared now."""
        for level in reversed(self.sweep.levels):
            if sum(level in seen.levels for _, seen in self._trials) >= MIN_TRIALS:
                return level
        return self.sweep.levels[0]

    def standing(self) -> Standing:
        """How the trials that have something to say compare at the present level. One that violates a constraint is not
        good."""
        level = self.level
        reached: list[Seen] = []
        others: list[Seen] = []
        for _, each in self._trials:
            if level in each.levels and each.outcome not in INFEASIBLE_OUTCOMES:
                (reached if self._feasible(each, level) else others).append(each)
            elif each.outcome in FINAL_OUTCOMES:
                others.append(each)
        if not reached:
            return Standing([], others)
        place = places(np.array([each.values(level, self.sweep.config.objectives) for each in reached]))
        best = place <= math.ceil(len(reached) / BEST_PART)
        good = [each for each, is_good in zip(reached, best, strict=True) if is_good]
        others += [each for each, is_good in zip(reached, best, strict=True) if not is_good]
        return Standing(good, others)

    def trials(self, study: optuna.Study) -> list[FrozenTrial]:
        """The study's trials as a model should see them, at most about MOST_TOLD.

        COMPLETE: reached the level, with the objectives there. PRUNED: ended before it. RUNNING: may still reach it.
        Replicates are part of the trial that they repeat.
        """
        level, real = self.level, study.get_trials(deepcopy=False)
        reached: list[int] = []
        ended: list[int] = []
        running: list[int] = []
        seen = dict(self._trials)
        for number, each in seen.items():
            if level in each.levels and each.outcome not in INFEASIBLE_OUTCOMES:
                reached.append(number)
            elif each.outcome in (Outcome.PRUNED, *INFEASIBLE_OUTCOMES):
                ended.append(number)
            elif each.outcome in UNFINISHED_OUTCOMES:
                running.append(number)
        if len(seen) > MOST_TOLD:
            reached = self._best_and_newest({number: seen[number] for number in reached}, level)
            ended = ended[-MOST_TOLD // 2 :]
        self.num_compared = len(reached)
        shown = [self._show(real[number], seen[number], TrialState.COMPLETE, level) for number in reached]
        shown += [self._show(real[number], seen[number], TrialState.PRUNED, level) for number in ended]
        shown += [self._show(real[number], seen[number], TrialState.RUNNING, level) for number in running]
        return sorted(shown, key=lambda trial: trial.number)

    def _best_and_newest(self, reached: Mapping[int, Seen], level: int) -> list[int]:
        numbers = list(reached)
        if not numbers:
            return []
        place = places(np.array([seen.values(level, self.sweep.config.objectives) for seen in reached.values()]))
        infeasible = np.array([not self._feasible(seen, level) for seen in reached.values()])
        best = [numbers[index] for index in np.lexsort((place, infeasible))[:BEST_TOLD]]
        return sorted({*best, *numbers[-MOST_TOLD // 2 :]})

    def _feasible(self, seen: Seen, level: int) -> bool:
        return self.sweep.feasible(_judged(seen, level))

    def _show(self, real: FrozenTrial, seen: Seen, state: TrialState, level: int) -> FrozenTrial:
        values = seen.values(level, self.sweep.config.objectives) if state == TrialState.COMPLETE else None
        key = state, seen.outcome, values
        known = self._shown.get(real.number)
        if known is None or known[0] != key:
            known = self._shown[real.number] = key, self._frozen(real, seen, state, level, values)
        return known[1]

    def _frozen(
        self, real: FrozenTrial, seen: Seen, state: TrialState, level: int, values: list[float] | None
    ) -> FrozenTrial:
        params, distributions = searched(self.sweep.space.parameters(), seen.params)
        trial = create_trial(
            state=state,
            values=values,
            params=params,
            distributions=distributions,
            system_attrs={key: value for key, value in real.system_attrs.items() if not key.startswith("constraints")},
            constraints=self._constraints(seen, state, level),
        )
        trial.number, trial._trial_id = real.number, real._trial_id
        return trial

    def _constraints(self, seen: Seen, state: TrialState, level: int) -> dict[str, float] | None:
        """TPE takes the least violation for good where all violate a constraint: never one that has no values."""
        if not state.is_finished():
            return None
        found = constraint_values(self.sweep, seen.outcome, _judged(seen, level))
        return found | {NO_VALUES: math.inf} if found and state == TrialState.PRUNED else found


def _judged(seen: Seen, level: int) -> Metrics:
    """The metrics that constraints are about: the last ones of a completed trial, else those at the level."""
    return seen.last if seen.outcome == Outcome.COMPLETED else seen.levels.get(level, {})
