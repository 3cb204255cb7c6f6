"""What Tune does with the searcher and the scheduler, without Tune."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from optuna.trial import FrozenTrial
from ray.tune.schedulers import TrialScheduler
from sweeps import evaluation, make_journal, make_sweep

from search.config.sweep import Sweep
from search.journal.journal import Journal
from search.journal.records import Cause, FileKind, SavedRecord
from search.running.messages import Assignment, Ended, Evaluated, Report, Started, to_result
from search.running.tuner import make_search
from search.storage.place import Place
from search.storage.trial_files import state_name
from vaegan_core.evaluation import Evaluation

TRACEBACK = "Traceback\n  line\nOSError: disk\n"


class Tuning:
    """One driver's life over a journal."""

    def __init__(self, sweep: Sweep, journal: Journal, max_concurrent: int = 10) -> None:
        self.sweep, self.journal, self.stop = sweep, journal, False
        self.directory = journal.path.parent
        self.search, self.scheduler = make_search(
            sweep, journal, Place.of(self.directory, journal), max_concurrent, lambda: self.stop
        )
        self._ids: dict[int, str] = {}
        self._configs: dict[int, dict[str, Any]] = {}
        self._count = 0
        self._resources: list[dict[str, float]] = []

    def suggest(self) -> Any:
        """The assignment of a new Tune trial, or None, or FINISHED."""
        self._count += 1
        found = self.search.suggest(f"tune-{self._count}")
        if isinstance(found, dict):
            self._ids[found["trial"]] = f"tune-{self._count}"
            self._configs[found["trial"]] = found
            tune_trial = SimpleNamespace(config=found, update_resources=self._resources.append)
            self.scheduler.on_trial_add(None, tune_trial)
        return found

    def start(self, count: int = 1) -> list[int]:
        return [self.suggest()["trial"] for _ in range(count)]

    def tell(self, number: int, report: Report) -> None:
        result = to_result(report)
        decision = self.scheduler.on_trial_result(None, SimpleNamespace(config=self._configs[number]), result)
        if decision == TrialScheduler.STOP:
            self.search.on_trial_complete(self._ids[number], result)

    def report(self, number: int, found: Evaluation, *, saved: bool = False) -> None:
        """Tells of an evaluation, whose state or weights may have been `saved`."""
        self.tell(number, Evaluated(found, tuple(self._records(number, found)) if saved else ()))

    def _records(self, number: int, found: Evaluation) -> Iterator[SavedRecord]:
        assignment = Assignment.of(self._configs[number])
        names = {FileKind.STATE: state_name(found.step), FileKind.MODEL: "model.safetensors"}
        for kind, name in names.items():
            if kind == FileKind.STATE or found.outcome == "completed":
                key = f"{assignment.folder}/{name}"
                yield SavedRecord(number, assignment.attempt, found.step, kind, key, f"hash of {key}")

    def complete(self, number: int, mse: float = 0.5, fd: float = 5.0, *, saved: bool = False) -> None:
        self.report(number, evaluation(480, mse, fd, "completed"), saved=saved)

    def begin(self, number: int, node: str = "n") -> None:
        """The worker's first words."""
        config, attempt = self._configs[number]["config"], self._configs[number]["attempt"]
        self.tell(number, Started(config, {"node": node, "try": str(attempt)}, 0))

    def crash(
        self, number: int, error: str = "Traceback\n  line\nOSError: disk\n", cause: Cause = Cause.CRASHED
    ) -> None:
        """The worker caught an exception, reported it and returned."""
        self.tell(number, Ended(cause, error))
        self.search.on_trial_complete(self._ids[number], {})

    def die(self, number: int) -> None:
        """The worker's process or its node has died."""
        self.search.on_trial_complete(self._ids[number], error=True)

    def told(self, number: int) -> FrozenTrial:
        return self.search.proposals.study.trials[number]


def tuning(directory: Path, max_concurrent: int = 10, **changes: Any) -> Tuning:
    return Tuning(make_sweep(**changes), make_journal(directory), max_concurrent)


def resume(before: Tuning, **changes: Any) -> Tuning:
    """Another driver on the same journal."""
    path = before.journal.path
    before.journal.close()
    return Tuning(make_sweep(**changes) if changes else before.sweep, Journal(path))
