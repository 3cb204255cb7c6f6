"""Early stopping: plain logic over the journal, so that a resumed sweep judges as an uninterrupted one would have.

Ray has these rules too, but keeps their state in memory under trial ids that a new Tuner changes.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Protocol

from search.config.strategies import AshaConfig, MedianConfig
from search.config.sweep import Sweep
from search.journal.journal import Journal
from search.journal.records import RungRecord
from search.standings.ranks import Ranks


class StoppingRule(Protocol):
    """A rule of early stopping."""

    def verdict(self, trial: int, step: int, metrics: Mapping[str, float]) -> str:
        """Why the trial must stop after its evaluation at `step`; "" when it continues. Idempotent."""


class NoRule:
    """Never stops a trial."""

    def verdict(self, trial: int, step: int, metrics: Mapping[str, float]) -> str:  # noqa: ARG002
        return ""


class Rungs:
    """Asynchronous successive halving over one or several objectives (Li et al. 2020, alg. 2, stopping variant).

    At a rung a trial continues if its place among all that have reached it is within ceil(n / reduction_factor).
    """

    def __init__(self, steps: Sequence[int], reduction_factor: int, records: Sequence[RungRecord] = ()) -> None:
        self.steps = tuple(steps)
        self.reduction_factor = reduction_factor
        self._records: dict[tuple[int, int], RungRecord] = {}
        self._ranks = defaultdict[int, Ranks](Ranks)
        for record in records:
            self._records[record.rung, record.trial] = record
            self._ranks[record.rung].add(record.objectives)

    def reached(self, trial: int, step: int) -> int | None:
        """The highest rung at or below `step`, if the trial has not been judged there yet."""
        rung = sum(step >= level for level in self.steps) - 1
        return rung if rung >= 0 and (rung, trial) not in self._records else None

    def dropped(self, trial: int) -> RungRecord | None:
        """The verdict that the trial must stop, if any: a driver may have died before carrying it out."""
        records = (self._records.get((rung, trial)) for rung in range(len(self.steps)))
        return next((record for record in records if record is not None and not record.kept), None)

    def judge(self, trial: int, rung: int, step: int, objectives: tuple[float, ...]) -> RungRecord:
        """Adds the trial to the rung; the returned record says whether it continues."""
        place = self._ranks[rung].add(objectives)
        kept = place <= math.ceil(len(self._ranks[rung]) / self.reduction_factor)
        record = RungRecord(trial, rung, step, objectives, kept)
        self._records[rung, trial] = record
        return record


class AshaRule:
    """See `AshaConfig`. Asks the rungs that a trial has passed."""

    def __init__(self, sweep: Sweep, journal: Journal) -> None:
        config = sweep.config.scheduler
        assert isinstance(config, AshaConfig)
        self.journal = journal
        self.metrics = sweep.stopping_metrics
        self.rungs = Rungs(sweep.rungs, config.reduction_factor, journal.rungs())

    def verdict(self, trial: int, step: int, metrics: Mapping[str, float]) -> str:
        rung = self.rungs.reached(trial, step)
        if rung is not None:
            record = self.rungs.judge(trial, rung, step, tuple(metrics[name] for name in self.metrics))
            self.journal.add_rung(record)
        dropped = self.rungs.dropped(trial)
        if dropped is None:
            return ""
        return f"not among the best 1/{self.rungs.reduction_factor} of rung {dropped.rung} at step {dropped.step}"


class MedianRule:
    """See `MedianConfig`. Evaluations of all trials are at the same steps."""

    def __init__(self, sweep: Sweep, journal: Journal) -> None:
        config = sweep.config.scheduler
        assert isinstance(config, MedianConfig)
        self.config = config
        (self.metric,) = sweep.stopping_metrics
        self._values: dict[int, dict[int, float]] = defaultdict(dict)  # by trial, then by step
        self._means: dict[int, dict[int, float]] = defaultdict(dict)  # by step, then by trial
        for trial in journal.trials():
            for step, metrics in journal.evaluations(trial.number).items():
                self._add(trial.number, step, metrics[self.metric])

    def _add(self, trial: int, step: int, value: float) -> None:
        self._values[trial][step] = value
        self._means[step][trial] = statistics.fmean(v for s, v in self._values[trial].items() if s <= step)

    def verdict(self, trial: int, step: int, metrics: Mapping[str, float]) -> str:
        self._add(trial, step, metrics[self.metric])
        others = [mean for other, mean in self._means[step].items() if other != trial]
        if step < self.config.min_steps or len(others) < self.config.min_trials:
            return ""
        best, median = min(self._values[trial].values()), statistics.median(others)
        return f"{self.metric} {best:.4g} worse than the median {median:.4g} at step {step}" if best > median else ""


def make_rule(sweep: Sweep, journal: Journal) -> StoppingRule:
    """The rule that a sweep's scheduler names, continuing from the journal."""
    match sweep.config.scheduler:
        case AshaConfig():
            return AshaRule(sweep, journal)
        case MedianConfig():
            return MedianRule(sweep, journal)
    return NoRule()
