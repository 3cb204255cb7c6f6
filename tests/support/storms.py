"""Lives of a sweep in which everything goes wrong that may, by a seed: see `Storm.FAULTS`. What must always hold is
checked after every event."""

from __future__ import annotations

import heapq
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from flaky_mlflow import FlakyMlflow, StoredRun, writing_to
from lives import Killed, Life, Simulation, training
from mlflow.exceptions import MlflowException
from ray.tune.schedulers import TrialScheduler

from search.journal.journal import Journal
from search.journal.outbox import Outbox
from search.journal.records import FAILURES, Cause, TrialRecord
from search.names import DERIVED_PREFIXES, FINAL_OUTCOMES, UNFINISHED_OUTCOMES, Kind, Outcome, Tag
from search.paths import HANG_FILE, trial_directory
from search.running.messages import Ended, Evaluated, Report, to_result
from search.standings.blocks import Blocks
from search.tracking.runs import STATUS, text_of
from search.tracking.writer import MlflowWriter
from vaegan_core.evaluation import PIXEL_MSE, Evaluation

MOST_LIVES = 60
SHARE_DELIVERED = 0.2
"""Share of events after which the delivering process has a turn."""
CONTINUE = TrialScheduler.CONTINUE


class Broken(AssertionError):
    """Something that must always hold does not."""


@dataclass
class Commits:
    """Ends a life before or after a commit now and then, as a kill or as a disk that fails."""

    random: Random
    rate: float

    def __call__(self, db: sqlite3.Connection, call: Callable[[], Any]) -> Any:  # noqa: ARG002
        chance = self.random.random()
        if chance < self.rate:
            raise self.random.choice(
                (
                    Killed(),
                    sqlite3.OperationalError("database or disk is full"),
                    sqlite3.OperationalError("disk I/O error"),
                )
            )
        result = call()
        if chance > 1 - self.rate:
            raise Killed
        return result


@dataclass
class Facts:
    """What the journal said before, which nothing may change."""

    final: dict[int, tuple[str, str]] = field(default_factory=dict)
    points: int = 0
    evaluations: int = 0

    def check(self, journal: Journal, budget: int, retries: int) -> None:
        trials = journal.trials()
        if journal.num_drawn() > budget:
            raise Broken(f"{journal.num_drawn()} trials drawn, of {budget}")
        for trial in trials:
            before = self.final.get(trial.number)
            now = (trial.outcome, trial.reason)
            second_chance = before is not None and before[0] == Outcome.PRUNED and trial.outcome in UNFINISHED_OUTCOMES
            if before is not None and before != now and not second_chance:
                raise Broken(f"trial {trial.number} was {before}, and is {now}")
            if len(journal.failures(trial.number)) > retries + 1:
                raise Broken(f"trial {trial.number} was tried again after {retries} retries")
            for step, metrics in journal.evaluations(trial.number).items():
                truth = {each.step: each.metrics for each in training(trial.config)}
                if metrics != truth.get(step):
                    raise Broken(f"trial {trial.number} at step {step}: {metrics}, in truth {truth.get(step)}")
        self.final = {
            trial.number: (trial.outcome, trial.reason) for trial in trials if trial.outcome in FINAL_OUTCOMES
        }
        counts = [
            journal.db.execute(f"SELECT COUNT(*) FROM {name}").fetchone()[0] for name in ("points", "evaluations")
        ]
        if counts < [self.points, self.evaluations]:
            raise Broken(f"{self.points} points and {self.evaluations} evaluations before, {counts} now")
        self.points, self.evaluations = counts


class Storm(Life):
    """A driver's life with workers, a network and a clock that fail."""

    FAULTS = ("crash", "no memory", "death", "hang", "twice", "stale", "late", "slow", "clock")

    def __init__(
        self, simulation: Simulation, journal: Journal, random: Random, facts: Facts, rate: float, server: FlakyMlflow
    ) -> None:
        self.random, self.facts, self.rate = random, facts, rate
        self.mail = Mail(simulation, server)
        self.stopping = False
        self.sweep, self.directory = simulation.sweep, simulation.directory
        super().__init__(simulation, journal)

    def stop_requested(self) -> bool:
        return self.stopping

    def run(self) -> None:
        try:
            self._run()
        finally:
            self.mail.journal.close()

    def _run(self) -> None:
        now = 0.0
        while self._fill(now) or self.waiting:
            self.check()
            if self.random.random() < SHARE_DELIVERED:
                self.mail.deliver()
            now, number = heapq.heappop(self.waiting)
            self.stopping = self.stopping or self.random.random() < self.rate / 20
            fault = self.random.choice(self.FAULTS) if self.random.random() < self.rate else ""
            self._event(now, number, fault)
            self.check()
        if self.journal.trials(*UNFINISHED_OUTCOMES) and not self.stopping:
            raise Broken("the sweep ended with unfinished trials")
        if self.stopping:
            raise Killed

    def check(self) -> None:
        live = {trial.config["trial"] for trial, _ in self.attempts.values()}
        running = {trial.number for trial in self.journal.trials(Outcome.RUNNING)}
        if not live <= running or len(live) > self.slots or len(live) != len(self.attempts):
            raise Broken(f"{sorted(live)} are trained, and {sorted(running)} run by the journal")
        config = self.sweep.config
        self.facts.check(self.journal, config.budget.trials, config.retries)

    def _event(self, now: float, number: int, fault: str) -> None:
        trial, reports = self.attempts[number]
        if fault == "slow":
            heapq.heappush(self.waiting, (now + 9 * trial.pace, number))
        elif fault in ("death", "hang"):
            if fault == "hang":
                file = trial_directory(self.directory, trial.config["trial"]) / HANG_FILE
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text("a thread waits")
            del self.attempts[number]
            self.search.on_trial_complete(trial.trial_id, error=True)
        elif fault in ("crash", "no memory"):
            cause = Cause.CRASHED if fault == "crash" else Cause.OUT_OF_MEMORY
            self._tell(trial, Ended(cause, f"Traceback\nOSError: {fault}"))
            del self.attempts[number]
            self.search.on_trial_complete(trial.trial_id, {})
        else:
            if fault == "clock":
                CLOCK.ahead += self.random.uniform(-3600, 3600)
            report = next(reports)
            self._receive(now, number, report, fault)

    def _receive(self, now: float, number: int, report: Report, fault: str) -> None:
        trial, _ = self.attempts[number]
        if fault == "stale" and isinstance(report, Evaluated):
            earlier = [each for each in training(trial.config["config"]) if each.step < report.evaluation.step]
            if earlier and self._tell(trial, Evaluated(self.random.choice(earlier))) != CONTINUE:
                self._end(number, {})
                return
        decision = self._tell(trial, report)
        if fault == "twice" and decision == CONTINUE:
            decision = self._tell(trial, report)
        if decision == CONTINUE:
            heapq.heappush(self.waiting, (now + trial.pace, number))
        else:
            self._end(number, to_result(report))
            if fault == "late" or self.random.random() < self.rate:
                self._tell(trial, report)

    def _tell(self, trial: SimpleNamespace, report: Report) -> str:
        decision = str(self.scheduler.on_trial_result(None, trial, to_result(report)))
        self.keeping.after_report()
        return decision


class Mail:
    """The process that delivers to MLflow, which ends with its driver and begins anew after every failed call."""

    def __init__(self, simulation: Simulation, server: FlakyMlflow) -> None:
        self.sweep, self.directory, self.server = simulation.sweep, simulation.directory, server
        self.journal = Journal(simulation.path)
        self.journal.db.execute("PRAGMA synchronous=OFF")
        self.writer: MlflowWriter | None = None

    def deliver(self, *, last: bool = False) -> None:
        """One round; what fails is left for the next one."""
        with writing_to(self.server) as make:
            try:
                self.writer = self.writer or make(self.sweep, self.journal, self.directory, self.server.tracking_uri)
                self.writer.deliver()
                if last:
                    self.writer.finish("")
            except (MlflowException, OSError):
                self.writer = None
                if last:
                    raise


@dataclass
class Clock:
    """A clock that may be set ahead or back."""

    ahead: float = 0.0
    now: Callable[[], float] = time.time

    def __call__(self) -> float:
        return self.now() + self.ahead


CLOCK = Clock()


def weather(simulation: Simulation, seed: int, rate: float = 0.15) -> int:
    """Lives through a storm to the sweep's end; the number of lives. Raises Broken with the seed."""
    random, facts = Random(seed), Facts()
    server = FlakyMlflow(Random(seed), rate)
    CLOCK.ahead = 0.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", CLOCK)
        try:
            for life in range(1, MOST_LIVES):
                calm = life >= MOST_LIVES / 2
                commits = Commits(random, 0.0 if calm else rate / 60)
                storm = partial(Storm, random=random, facts=facts, rate=0.0 if calm else rate, server=server)
                if simulation.live(commits, storm):
                    check_end(simulation)
                    server.rate = 0.0
                    check_delivered(simulation, server)
                    return life
            raise Broken(f"not done after {MOST_LIVES} lives")
        except Broken as broken:
            raise Broken(f"seed {seed}: {broken}") from None


def check_end(simulation: Simulation) -> None:
    """What must hold once a sweep is over, whatever happened to it."""
    journal, config = Journal(simulation.path), simulation.sweep.config
    try:
        if journal.num_drawn() != config.budget.trials:
            raise Broken(f"{journal.num_drawn()} trials were drawn, of {config.budget.trials}")
        if set((blocks := Blocks(simulation.sweep, journal)).done().values()) - {config.blocks.at_most} or blocks.left:
            raise Broken(f"blocks were done: {blocks.done()}, of {config.blocks.at_most}")
        for trial in journal.trials():
            truth = training(trial.config)
            if trial.outcome not in FINAL_OUTCOMES:
                raise Broken(f"trial {trial.number} is {trial.outcome}")
            if trial.outcome in (Outcome.COMPLETED, Outcome.DIVERGED) and str(trial.outcome) != truth[-1].outcome:
                raise Broken(f"trial {trial.number} is {trial.outcome}, in truth {truth[-1].outcome}")
            if trial.outcome == Outcome.FAILED and not failed_rightly(journal, trial.number, config.retries):
                raise Broken(f"trial {trial.number} failed without reason: {journal.attempts(trial.number)}")
            if trial.outcome != Outcome.FAILED:
                complete(journal, trial.number, [each for each in truth if each.step <= trial.step])
    finally:
        journal.close()


def check_delivered(simulation: Simulation, server: FlakyMlflow) -> None:
    """What MLflow must have once it answers again: everything, once."""
    mail = Mail(simulation, server)
    try:
        mail.deliver(last=True)
        outbox, journal = Outbox(mail.journal), mail.journal
        if outbox.unsent() or outbox.refused():
            raise Broken(f"not delivered: {outbox.unsent()}, refused: {outbox.refused()}")
        parents = [run.status for run in server.active() if run.tags[Tag.KIND] == Kind.SWEEP]
        if parents != ["FINISHED"]:
            raise Broken(f"the sweep has runs that are {parents}")
        runs = {int(run.tags[Tag.TRIAL]): run for run in server.active() if Tag.TRIAL in run.tags}
        if len(runs) != len(list(server.active())) - 1 or runs.keys() != {t.number for t in journal.trials()}:
            raise Broken(f"runs of the trials {sorted(run.tags.get(Tag.TRIAL, '') for run in server.active())}")
        for trial in journal.trials():
            arrived(journal, trial, runs[trial.number])
    finally:
        mail.journal.close()


def arrived(journal: Journal, trial: TrialRecord, run: StoredRun) -> None:
    """The trial's run has its points and grids and no other, and says how it ended."""
    points = {(point.key, point.step, point.value, point.time) for point in journal.points(trial.number)}
    there = {metric for metric in run.metrics if not metric[0].startswith(DERIVED_PREFIXES)}
    if there != points:
        raise Broken(f"trial {trial.number}: MLflow has not {points - there}, but has {there - points}")
    if (run.tags[Tag.OUTCOME], run.status) != (trial.outcome, STATUS[trial.outcome]):
        raise Broken(f"trial {trial.number} is {trial.outcome}, in MLflow {run.tags[Tag.OUTCOME]} and {run.status}")
    if run.params != {name: text_of(value) for name, value in trial.params.items()}:
        raise Broken(f"trial {trial.number} has parameters {run.params}")
    grids = {f"images/prior_samples+{step}" for step in journal.evaluations(trial.number)}
    if grids - run.files:
        raise Broken(f"trial {trial.number}: {sorted(grids - run.files)} are not in MLflow")


def failed_rightly(journal: Journal, trial: int, retries: int) -> bool:
    causes = [attempt.cause for attempt in journal.attempts(trial)]
    return sum(cause in FAILURES for cause in causes) > retries or Cause.OUT_OF_MEMORY in causes


def complete(journal: Journal, trial: int, truth: list[Evaluation]) -> None:
    """Every point and every evaluation up to the trial's last step is there, once."""
    stored = {(point.key, point.step): point.value for point in journal.points(trial)}
    true = {(point.key, point.step): point.value for each in truth for point in each.points}
    if stored != true:
        raise Broken(f"trial {trial}: {len(true.keys() - stored.keys())} points are not there, of {len(true)}")
    evaluated = {each.step for each in truth if PIXEL_MSE in each.metrics}
    if set(journal.evaluations(trial)) != evaluated:
        raise Broken(
            f"trial {trial} was evaluated at {sorted(journal.evaluations(trial))}, in truth {sorted(evaluated)}"
        )
