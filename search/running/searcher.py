"""Tune's searcher: hands out trials and hears of their ends. Only the driver touches it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.search import Searcher

from search.config.sweep import Sweep
from search.journal.journal import Journal
from search.journal.records import Cause
from search.names import UNFINISHED_OUTCOMES, Outcome
from search.running.failures import Failures, Live, Verdict
from search.running.messages import Assignment
from search.storage.place import Place
from search.storage.trial_files import attempt_folder
from search.strategy.proposals import Proposals
from search.strategy.stopping import StoppingRule

LOOK_SECONDS = 1.0


class SweepSearcher(Searcher):  # type: ignore[misc]
    """Suggests unfinished trials first, then stopped ones with a second chance, then new ones up to the budget and
    those that answer questions, and at the end replicates of the best."""

    def __init__(
        self,
        sweep: Sweep,
        journal: Journal,
        place: Place,
        rule: StoppingRule,
        *,
        max_concurrent: int,
        stop_requested: Callable[[], bool],
    ) -> None:
        super().__init__()
        self.sweep = sweep
        self.journal = journal
        self.place = place
        self.rule = rule
        self.max_concurrent = max_concurrent
        self.stop_requested = stop_requested
        self.proposals = Proposals(sweep, journal, max_concurrent)
        self.failures = Failures(sweep, journal, place, stop_requested)
        self.tune_trials: Sequence[Trial] = ()
        """All that Tune has been given."""
        self._looked = -LOOK_SECONDS
        self._live: dict[str, Live] = {}
        self._unfinished = deque(trial.number for trial in journal.trials(*UNFINISHED_OUTCOMES))

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher; ours lives in the journal."""
        return {}

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing: the journal has it."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self.stop_requested():
            return str(Searcher.FINISHED)
        self._apply(self.failures.judge_suspects())
        self._take_back_dropped()
        if len(self._live) >= self.max_concurrent or self._waits_for_a_whole_gpu():
            return None
        number = self._next_trial()
        if number is None:
            return None if self._busy else str(Searcher.FINISHED)
        live = self._live[trial_id] = self.failures.begin(number, self.nodes_in_use())
        record, start = self.journal.trial(number), self.journal.state_to_go_on_from(number)
        return Assignment(
            trial=number,
            attempt=live.attempt,
            alone=live.alone,
            apart=record.apart,
            config=record.config,
            storage=self.place.storage,
            prefix=self.place.prefix,
            folder=attempt_folder(number, live.attempt, self.place.epoch),
            scratch=str(self.place.scratch(number, live.attempt)),
            state=asdict(start) if start else None,
            gpu=self.sweep.config.resources.gpu,
            seconds=60 * self.sweep.config.evaluation_minutes,
            step=record.step,
        ).to_config()

    @property
    def _busy(self) -> bool:
        return bool(self._live or self.failures.suspects)

    def nodes_in_use(self) -> frozenset[str]:
        """Ids of nodes on which a trial has begun and runs."""
        environments = (self.journal.environment(live.number, live.attempt) for live in self._live.values())
        return frozenset(environment["node"] for environment in environments if "node" in environment)

    def _waits_for_a_whole_gpu(self) -> bool:
        """Whether a trial that must be alone has not begun yet: new ones would take the shares that become free."""
        alone = (live for live in self._live.values() if live.alone)
        return any(not self.journal.has_begun(live.number, live.attempt) for live in alone)

    def _next_trial(self) -> int | None:
        """Number of the trial to run now; None while there is none, or when there will be no more."""
        if not self._unfinished:
            number = self.rule.second_chance()
            if number is None:
                number = self.proposals.draw()
            if number is not None or self._busy:
                return number
            self._unfinished.extend(self.proposals.replicates())
        if not self._unfinished:
            return None
        number = self._unfinished.popleft()
        if self.failures.gives_up(number):
            self.proposals.tell(number)
            return self._next_trial()
        self.journal.reopen_trial(number)
        return number

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: the scheduler has written it to the journal."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:  # noqa: ARG002
        live = self._live.pop(trial_id)
        if self.journal.outcome(live.number) == Outcome.RUNNING:
            self._apply(self.failures.ended(live, self._said_about(trial_id) if error else ""))
        else:
            self.journal.end_attempt(live.number, live.attempt)
            self.proposals.tell(live.number)

    def _said_about(self, trial_id: str) -> str:
        """What Ray says about a worker that died."""
        return next((trial.get_error() or "" for trial in self.tune_trials if trial.trial_id == trial_id), "")

    def _take_back_dropped(self) -> None:
        """Tune tells nobody when it drops a trial whose worker has not ended the one before. Such a trial is tried
        again, and it counts against nobody."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        dropped = [trial.trial_id for trial in self.tune_trials if trial.status == Trial.ERROR]
        for live in [self._live.pop(id) for id in dropped if id in self._live]:
            self.journal.end_attempt(live.number, live.attempt, "its worker had not ended another trial", Cause.STOPPED)
            self._unfinished.appendleft(live.number)

    def _apply(self, verdicts: Iterable[Verdict]) -> None:
        for verdict in verdicts:
            if verdict.again:
                self._unfinished.appendleft(verdict.number)
            else:
                self.proposals.tell(verdict.number)
