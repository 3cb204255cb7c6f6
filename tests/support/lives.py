"""Sweeps without Ray, workers and a real clock: the searcher, the scheduler and the journal that a sweep runs, called
as Tune calls them, over made-up trainings. A driver's life may end at any commit; checkpoints outlive it."""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from ray.tune.schedulers import TrialScheduler

from search.config.sweep import Sweep
from search.journal.database import JournalError
from search.journal.journal import Journal
from search.journal.records import FileKind, SavedRecord
from search.running.driver import interrupt_unfinished
from search.running.keeping import Keeping, find_states
from search.running.messages import Assignment, Evaluated, Report, Started, to_result
from search.running.tuner import make_search
from search.storage.place import Place
from search.storage.trial_files import Described, state_name, trial_of
from vaegan_core.config.trial import parse_trial
from vaegan_core.evaluation import LAYOUT_FD, PIXEL_MSE, Evaluation, Outcome, Point
from vaegan_core.strict_yaml import parse_yaml

SHARE_DIVERGED = 0.2
Commit = Callable[[sqlite3.Connection, Callable[[], Any]], Any]
"""Stands around each commit, which is the call."""


class Killed(BaseException):
    """The driver's process ends here and now."""


class Watched:
    """A journal's connection; every call that commits something goes through `commit`."""

    def __init__(self, db: sqlite3.Connection, commit: Commit) -> None:
        self._db = db
        self._commit = commit

    def execute(self, sql: str, *values: Any) -> Any:
        return self._call(sql, lambda: self._db.execute(sql, *values))

    def executemany(self, sql: str, *values: Any) -> Any:
        return self._call(sql, lambda: self._db.executemany(sql, *values))

    def _call(self, sql: str, call: Callable[[], Any]) -> Any:
        writes = sql.startswith(("INSERT", "UPDATE", "DELETE")) and not self._db.in_transaction
        return self._commit(self._db, call) if writes or sql == "COMMIT" else call()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


@dataclass
class KillAt:
    """Ends the driver's life before or after a commit, counted from 0; -1 never does.

    With `synced`, the machine loses power then, and of the journal only the first `synced` commits are on its disk.
    """

    number: int = -1
    after: bool = False
    synced: int | None = None
    seen: int = 0

    def __call__(self, db: sqlite3.Connection, call: Callable[[], Any]) -> Any:
        kills, self.seen = self.seen == self.number, self.seen + 1
        if kills and not self.after:
            raise Killed
        result = call()
        if self.seen == self.synced:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        if kills:
            raise Killed
        return result


@dataclass
class SavedStates:
    """The storage: by key, the configuration of a state and the evaluations with it. It outlives every driver."""

    states: dict[str, tuple[str, list[Evaluation]]]

    def all_keys(self) -> list[str]:
        return sorted(self.states)

    def describe(self, key: str) -> Described:
        config, evaluations = self.states[key]
        return Described(evaluations[-1].step, parse_yaml(config), key)

    def delete(self, keys: list[str]) -> None:
        for key in keys:
            self.states.pop(key, None)

    def delete_others(self, trial: int, needed: Container[str]) -> None:
        self.delete([key for key in self.states if trial_of(key) == trial and key not in needed])


@dataclass
class Simulation:
    """A sweep in `directory`, and what its workers have saved."""

    sweep: Sweep
    directory: Path
    slots: int = 1
    files: SavedStates = field(default_factory=lambda: SavedStates({}))

    def __post_init__(self) -> None:
        Journal.create(self.path, id="simulated").close()

    @property
    def path(self) -> Path:
        return self.directory / "journal.db"

    def live(self, commit: Commit, make: Callable[[Simulation, Journal], Life] | None = None) -> bool:
        """One driver's life, an ordinary one unless `make` makes another; whether it came to the sweep's end."""
        journal = Journal(self.path)
        db = journal.db
        db.execute("PRAGMA synchronous=OFF")  # quicker, and a process that is killed loses nothing that it has written
        journal.db = Watched(db, commit)  # type: ignore[assignment]
        try:
            interrupt_unfinished(journal)
            (make or Life)(self, journal).run()
        except (Killed, JournalError, sqlite3.Error):
            on_disk = self.path.read_bytes()  # without the write-ahead log
            db.close()  # an open transaction goes as it goes with a process
            if getattr(commit, "synced", None) is not None:
                self.path.write_bytes(on_disk)
            return False
        db.close()
        return True

    def record(self) -> dict[str, list[tuple[Any, ...]]]:
        """Everything in the journal that a sweep cut off and resumed must share with one that was not."""
        db = sqlite3.connect(self.path)
        try:
            return {name: db.execute(query).fetchall() for name, query in RECORD.items()}
        finally:
            db.close()


RECORD = {
    "trials": "SELECT number, params, config, origin, outcome, reason, step, replicate_of FROM trials ORDER BY number",
    "points": "SELECT trial, key, step, value, time FROM points ORDER BY trial, key, step",
    "evaluations": "SELECT trial, step, metrics, diagnoses FROM evaluations ORDER BY trial, step",
    "images": "SELECT trial, key, step, png FROM images ORDER BY trial, key, step",
    "rungs": "SELECT * FROM rungs ORDER BY rung, trial",
    "open or blamed attempts": "SELECT trial, attempt, cause FROM attempts WHERE ended IS NULL "
    "OR cause NOT IN ('', 'stopped') OR mismatches",
}


class Life:
    """One driver over a journal, until everything has ended."""

    def __init__(self, simulation: Simulation, journal: Journal) -> None:
        self.files = simulation.files
        self.journal = journal
        self.slots = simulation.slots
        find_states(journal, self.files)
        place = Place.of(simulation.directory, journal)
        self.search, self.scheduler = make_search(
            simulation.sweep, journal, place, simulation.slots, self.stop_requested
        )
        self.keeping = Keeping(self.search, self.files)
        self.waiting: list[tuple[float, int]] = []  # when a Tune trial reports next, and its number
        self.attempts: dict[int, tuple[SimpleNamespace, Iterator[Report]]] = {}
        self.begun = 0

    def stop_requested(self) -> bool:
        return False

    def run(self) -> None:
        now = 0.0
        while self._fill(now) or self.waiting:
            now, number = heapq.heappop(self.waiting)
            trial, reports = self.attempts[number]
            result = to_result(next(reports))
            decision = self.scheduler.on_trial_result(None, trial, result)
            self.keeping.after_report()
            if decision == TrialScheduler.CONTINUE:
                heapq.heappush(self.waiting, (now + trial.pace, number))
            else:
                self._end(number, result)

    def _fill(self, now: float) -> bool:
        """Starts what Tune is given; whether that was anything."""
        before = self.begun
        while len(self.attempts) < self.slots:
            config = self.search.suggest(f"tune-{self.begun}")
            if not isinstance(config, dict):
                break
            assignment = Assignment.of(config)
            trial = SimpleNamespace(trial_id=f"tune-{self.begun}", config=config, pace=1 + assignment.trial % 3 / 7)
            trial.update_resources = lambda _: None
            self.scheduler.on_trial_add(None, trial)
            self.attempts[self.begun] = trial, worked(assignment, self.files)
            heapq.heappush(self.waiting, (now + trial.pace, self.begun))
            self.begun += 1
        return self.begun > before

    def _end(self, number: int, result: dict[str, Any]) -> None:
        trial, _ = self.attempts.pop(number)
        self.scheduler.on_trial_complete(None, trial, result)
        self.search.on_trial_complete(trial.trial_id, result=result)
        self.keeping.after_trial(trial.config["trial"])


def worked(assignment: Assignment, files: SavedStates) -> Iterator[Report]:
    """What a worker reports of an attempt: what its state has and the journal may not, then what it trains."""
    start = assignment.start
    _, saved = files.states[start.key] if start else ("", [])
    yield Started(assignment.config, {"node": "n", "host": "here", "device": "cpu"}, start.step if start else 0)
    lost = [each for each in saved if each.step >= assignment.step]
    for evaluation in lost or saved[-1:]:
        yield Evaluated(evaluation)
    evaluations = training(assignment.config)
    for count, evaluation in enumerate(evaluations[len(saved) :], len(saved) + 1):
        if evaluation.outcome == "diverged":
            yield Evaluated(evaluation)
            return
        key = f"{assignment.folder}/{state_name(evaluation.step)}"
        files.states[key] = assignment.config, evaluations[:count]
        record = SavedRecord(assignment.trial, assignment.attempt, evaluation.step, FileKind.STATE, key, key)
        yield Evaluated(evaluation, (record,))


@cache
def training(config: str) -> list[Evaluation]:
    """The evaluations of a configuration, always the same."""
    trial = parse_trial(parse_yaml(config))
    rng = np.random.default_rng(list(config.encode()))
    steps = range(trial.evaluate.every, trial.train.steps + 1, trial.evaluate.every)
    diverges = int(rng.choice(steps)) if rng.random() < SHARE_DIVERGED else trial.train.steps + 1
    levels = dict(zip((PIXEL_MSE, LAYOUT_FD), rng.lognormal(size=2).tolist(), strict=True))
    found = []
    for step in steps:
        outcome: Outcome = "diverged" if step >= diverges else "completed" if step == steps[-1] else "running"
        metrics = {} if outcome == "diverged" else {key: level / step for key, level in levels.items()}
        points = (Point("train/kl", step - 1, float(rng.random()), step), *_points(metrics, step))
        images = {} if outcome == "diverged" else {"prior_samples": b"png of %d" % step}
        reason = f"kl is nan at step {step}" if outcome == "diverged" else ""
        found.append(Evaluation(step, outcome, metrics, points, images, reason))
        if outcome == "diverged":
            break
    return found


def _points(metrics: dict[str, float], step: int) -> Iterator[Point]:
    return (Point(key, step, value, step) for key, value in metrics.items())
