"""Which files of trials are kept: found again where the journal does not name them, deleted when nobody needs them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator
from contextlib import suppress
from typing import Protocol

from search.journal.journal import Journal
from search.journal.records import FileKind, SavedRecord, TrialRecord
from search.names import UNFINISHED_OUTCOMES, Artifact, Outcome
from search.running.searcher import SweepSearcher
from search.standings.standings import best_of
from search.storage.trial_files import Described, trial_of
from vaegan_core.config.trial import parse_trial
from vaegan_core.problems import ConfigError
from vaegan_core.strict_yaml import parse_yaml
from vaegan_core.training.machine import wishing


class Deleting(Protocol):
    """Deletes files of trials, now or later."""

    def delete(self, keys: list[str]) -> None: ...

    def delete_others(self, trial: int, needed: Container[str]) -> None: ...


class Looking(Protocol):
    """Says what files of trials are there."""

    def all_keys(self) -> Iterable[str]: ...

    def describe(self, key: str) -> Described | None: ...


class Keeping:
    """Frees the storage of what no trial goes on from and of weights that are not among the best. What is deleted is
    first forgotten by the journal."""

    def __init__(self, search: SweepSearcher, files: Deleting) -> None:
        self.search = search
        self.sweep = search.sweep
        self.journal = search.journal
        self.rule = search.rule
        self.files = files
        completed = self.journal.trials(Outcome.COMPLETED)
        self._with_models = {trial.number for trial in completed if self.journal.model(trial.number)}
        self._waiting: set[int] = set()
        self._discard_hopeless(trial.number for trial in self.journal.trials(Outcome.PRUNED))

    def after_report(self) -> None:
        """A running trial has saved a state, which stands for its earlier ones."""
        records = self.journal.superseded()
        if records:
            self.journal.forget(records)
            self.files.delete([record.key for record in records])

    def after_trial(self, number: int) -> None:
        """A trial has ended, or this attempt at it."""
        outcome = self.journal.outcome(number)
        if outcome == Outcome.COMPLETED and not self.journal.trial(number).apart:
            self._discard(number, keep_model=True)
            self._keep_best_models(number)
        elif outcome == Outcome.PRUNED:
            self._discard_hopeless([number])
        elif outcome not in UNFINISHED_OUTCOMES:
            self._discard(number)

    def _discard_hopeless(self, stopped: Iterable[int]) -> None:
        """Deletes the files of stopped trials that get no second chance any more."""
        stopped, waiting = self._waiting | set(stopped), self.rule.waiting()
        for number in stopped - waiting:
            if self.journal.outcome(number) == Outcome.PRUNED:
                self._discard(number)
        self._waiting = stopped & waiting

    def _keep_best_models(self, number: int) -> None:
        """Deletes the worst model when more trials have one than are kept."""
        config = self.sweep.config
        most = max(config.tracking.keep_models, config.confirm.top if config.confirm else 0)
        self._with_models.add(number)
        for worse in best_of(self.sweep, self.journal, self._with_models)[most:]:
            self._discard(worse)
            self._with_models.remove(worse)

    def _discard(self, number: int, *, keep_model: bool = False) -> None:
        """Deletes a trial's files, except its states that others may be given, or begin with."""
        needed = self.journal.for_others(number)
        model = self.journal.model(number) if keep_model else None
        needed |= {model.key} if model else set()
        self.journal.forget(record for record in self.journal.saved_of(number) if record.key not in needed)
        self.files.delete_others(number, needed)


def find_states(journal: Journal, files: Looking) -> None:
    """Has the journal name files that lie there and that it does not know: those of an earlier version, and those of
    reports that it has lost. A state that it names and that is not there any more is forgotten."""
    there = defaultdict[int, list[str]](list)
    for key in files.all_keys():
        there[trial_of(key)].append(key)
    for trial in journal.trials(*UNFINISHED_OUTCOMES, Outcome.PRUNED, Outcome.COMPLETED):
        keys, completed = there[trial.number], trial.outcome == Outcome.COMPLETED
        named = journal.model(trial.number) if completed else journal.state(trial.number)
        if named is not None and named.key in keys:
            continue
        stale = [record for record in journal.saved_of(trial.number) if record.key not in keys]
        if stale:  # a commit for each trial that was discarded would take long
            journal.forget(stale)
        kind = FileKind.MODEL if completed else FileKind.STATE
        keys = [key for key in keys if key.endswith(Artifact.MODEL) == completed]
        found = sorted(_written_by(trial, kind, keys, journal.num_attempts(trial.number), files), key=lambda r: r.step)
        if found:
            journal.add_saved(found[-1:])


def _written_by(
    trial: TrialRecord, kind: FileKind, keys: Iterable[str], attempts: int, files: Looking
) -> Iterator[SavedRecord]:
    """The files among these that were written with the trial's present configuration, whatever the machine decided."""
    config = wishing(parse_trial(parse_yaml(trial.config)), {})
    for key in keys:
        described = files.describe(key)
        if described is None:
            continue
        with suppress(ConfigError):
            if wishing(parse_trial(described.config, key), {}) == config:
                yield SavedRecord(trial.number, max(1, attempts), described.step, kind, key, described.sha256)
