"""Early stopping: plain logic over the journal, so that a resumed sweep judges as an uninterrupted one would have.

Ray has these rules too, but keeps their state in memory under trial ids that a new Tuner changes.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from search.config.strategies import MOST_WAITING, AshaConfig, MedianConfig
from search.config.sweep import Sweep
from search.journal.journal import Journal
from search.journal.records import RungRecord
from search.standings.ranks import Ranks


class StoppingRule(Protocol):
    """A rule of early stopping."""

    def verdict(self, trial: int, step: int, metrics: Mapping[str, float]) -> str:
        """Why the trial must stop after its evaluation at `step`; "" when it continues. Idempotent."""

    def waiting(self) -> set[int]:
        """Stopped trials that may get a second chance."""

    def second_chance(self) -> int | None:
        """A stopped trial that goes on now, if there is one; the journal then has it running again."""


class NoRule:
    """Never stops a trial."""

    def verdict(self, trial: int, step: int, metrics: Mapping[str, float]) -> str:  # noqa: ARG002
        return ""

    def waiting(self) -> set[int]:
        return set()

    def second_chance(self) -> int | None:
        return None


class Rungs:
    """Asynchronous successive halving over one or several objectives (Li et al. 2020, alg. 2, stopping variant).

    At a rung a trial continues if its place among all that have reached it is within ceil(n / reduction_factor). As n
    grows, a stopped one may come to lie within it: the best few of those that `may_wait` are remembered.
    """

    def __init__(
        self,
        steps: Sequence[int],
        reduction_factor: int,
        records: Sequence[RungRecord] = (),
        may_wait: Callable[[int], bool] = lambda _: True,
    ) -> None:
        self.steps = tuple(steps)
        self.may_wait = may_wait
        self.reduction_factor = reduction_factor
        self._records: dict[tuple[int, int], RungRecord] = {}
        self._ranks = defaultdict[int, Ranks](Ranks)
        self._waiting: dict[int, list[RungRecord]] = defaultdict(list)
        for record in records:
            self._ranks[record.rung].add(record.objectives)
        for record in records:
            self._remember(record)

    def reached(self, trial: int, step: int) -> int | None:
        """The highest rung at or below `step`, if the trial has not been judged there or dropped before."""
        rung = sum(step >= level for level in self.steps) - 1
        return rung if rung >= 0 and (rung, trial) not in self._records and not self.dropped(trial) else None

    def dropped(self, trial: int) -> RungRecord | None:
        """The verdict that the trial must stop, if any: a driver may have died before carrying it out."""
        records = (self._records.get((rung, trial)) for rung in range(len(self.steps)))
        return next((record for record in records if record is not None and not record.kept), None)

    def judge(self, trial: int, rung: int, step: int, objectives: tuple[float, ...]) -> RungRecord:
        """Adds the trial to the rung; the returned record says whether it continues."""
        kept = self._ranks[rung].add(objectives) <= self._places(rung)
        record = RungRecord(trial, rung, step, objectives, kept)
        self._remember(record)
        return record

    def waiting(self) -> Iterator[RungRecord]:
        """Trials that were stopped and are next in line, from the highest rung down, the best of a rung first."""
        for rung in range(len(self.steps) - 1, -1, -1):
            yield from self._waiting[rung]

    def would_be_kept(self, record: RungRecord) -> bool:
        """Whether a stopped trial would go on, judged now."""
        return self._ranks[record.rung].place(record.objectives) <= self._places(record.rung)

    def take_back(self, record: RungRecord) -> None:
        """Lets a stopped trial go on."""
        self._waiting[record.rung].remove(record)
        self._remember(replace(record, kept=True))

    def _places(self, rung: int) -> int:
        return math.ceil(len(self._ranks[rung]) / self.reduction_factor)

    def _remember(self, record: RungRecord) -> None:
        self._records[record.rung, record.trial] = record
        if not record.kept and self.may_wait(record.trial):
            line = [*self._waiting[record.rung], record]
            line.sort(key=lambda each: (self._ranks[record.rung].place(each.objectives), each.trial))
            self._waiting[record.rung] = line[:MOST_WAITING]


class AshaRule:
    """See `AshaConfig`. Asks the rungs that a trial has passed."""

    def __init__(self, sweep: Sweep, journal: Journal, has_state: Callable[[int], bool]) -> None:
        config = sweep.config.scheduler
        assert isinstance(config, AshaConfig)
        self.sweep = sweep
        self.config = config
        self.journal = journal
        self.has_state = has_state
        self.metrics = sweep.stopping_metrics
        self.rungs = Rungs(sweep.rungs, config.reduction_factor, journal.rungs(), self._may_wait)

    def verdict(self, trial: int, step: int, metrics: Mapping[str, float]) -> str:
        rung = self.rungs.reached(trial, step)
        if rung is not None:
            record = self.rungs.judge(trial, rung, step, tuple(metrics[name] for name in self.metrics))
            self.journal.add_rung(record)
        dropped = self.rungs.dropped(trial)
        if dropped is None or self.sweep.is_audited(trial):
            return ""
        return f"not among the best 1/{self.rungs.reduction_factor} of rung {dropped.rung} at step {dropped.step}"

    def waiting(self) -> set[int]:
        return {record.trial for record in self._in_line()}

    def second_chance(self) -> int | None:
        for record in self._in_line():
            if self.rungs.would_be_kept(record) and self.has_state(record.trial):
                self.journal.take_back(record)
                self.rungs.take_back(record)
                return record.trial
        return None

    def _in_line(self) -> Iterator[RungRecord]:
        return self.rungs.waiting() if self.config.second_chance else iter(())

    def _may_wait(self, trial: int) -> bool:
        return not self.sweep.is_audited(trial) and self.has_state(trial)


class MedianRule(NoRule):
    """See `MedianConfig`. Evaluations of all trials are at the same steps."""

    def __init__(self, sweep: Sweep, journal: Journal) -> None:
        config = sweep.config.scheduler
        assert isinstance(config, MedianConfig)
        self.sweep = sweep
        self.config = config
        (self.metric,) = sweep.stopping_metrics
        self._values: dict[int, dict[int, float]] = defaultdict(dict)  # by trial, then by step
        self._means: dict[int, dict[int, float]] = defaultdict(dict)  # by step, then by trial
        for trial in (trial for trial in journal.trials() if not trial.apart):
            for step, metrics in journal.evaluations(trial.number).items():
                self._add(trial.number, step, metrics[self.metric])

    def _add(self, trial: int, step: int, value: float) -> None:
        self._values[trial][step] = value
        self._means[step][trial] = statistics.fmean(v for s, v in self._values[trial].items() if s <= step)

    def verdict(self, trial: int, step: int, metrics: Mapping[str, float]) -> str:
        self._add(trial, step, metrics[self.metric])
        others = [mean for other, mean in self._means[step].items() if other != trial]
        if step < self.config.min_steps or len(others) < self.config.min_trials or self.sweep.is_audited(trial):
            return ""
        best, median = min(self._values[trial].values()), statistics.median(others)
        return f"{self.metric} {best:.4g} worse than the median {median:.4g} at step {step}" if best > median else ""


def make_rule(sweep: Sweep, journal: Journal, has_state: Callable[[int], bool]) -> StoppingRule:
    """The rule that a sweep's scheduler names, continuing from the journal; `has_state` says of a stopped trial whether
    its state is kept."""
    match sweep.config.scheduler:
        case AshaConfig():
            return AshaRule(sweep, journal, has_state)
        case MedianConfig():
            return MedianRule(sweep, journal)
    return NoRule()
