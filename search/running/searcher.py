"""What Tune is suggested and what it tells: Tune's searcher around Optuna's study. Only the driver touches it."""

from __future__ import annotations

import json
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState
from ray.tune.search import Searcher

from search.cluster.nodes import dead_nodes, node_is_here
from search.config.strategies import PbtConfig
from search.config.sweep import Sweep
from search.journal.journal import Journal
from search.journal.records import AttemptRecord, Cause, TrialRecord
from search.names import UNFINISHED_OUTCOMES, Outcome, Prefix
from search.paths import HANG_FILE, trial_directory
from search.standings.standings import missing_replicates
from search.strategy.designs import grid_point, quasi_random
from search.strategy.study import STATES, build_study, constraint_values, final_values, intermediate_values
from vaegan_core.evaluation import Point

NODE_LOSS_SECONDS = 45.0
"""How long Ray may take to notice that a node is gone."""
SEED = "train.seed"
QUASI_RANDOM = "quasi-random"
TIMES = ", time "
MODELS = ("tpe", "gp", "cmaes")
"""Samplers that need results before they are better than chance."""


@dataclass(frozen=True)
class Live:
    """An attempt that Tune has been given."""

    number: int
    attempt: int
    alone: bool
    dead_nodes: frozenset[str]
    """When it began."""


@dataclass(frozen=True)
class Suspect:
    """An attempt whose process died while Ray may not yet know that its node is gone."""

    live: Live
    deadline: float


class OptunaSearch(Searcher):  # type: ignore[misc]
    """Suggests trials to Tune: unfinished ones first, then named points, then the sampler's, up to the budget; at the
    end replicates of the best."""

    def __init__(
        self,
        sweep: Sweep,
        journal: Journal,
        directory: Path,
        *,
        max_concurrent: int,
        stop_requested: Callable[[], bool],
    ) -> None:
        super().__init__()
        self.sweep = sweep
        self.journal = journal
        self.directory = directory
        self.max_concurrent = max_concurrent
        self.stop_requested = stop_requested
        self.study = build_study(sweep, journal)
        self._live: dict[str, Live] = {}
        self._suspects: list[Suspect] = []
        records = journal.trials()
        self._unfinished = deque(r.number for r in records if r.outcome in UNFINISHED_OUTCOMES)
        self._drawn = sum(record.replicate_of is None for record in records)
        self._next = journal.next_number()
        used = {record.origin.partition(TIMES)[0] for record in records}
        self._points = deque(name for name in sweep.config.points if f"point {name}" not in used)
        trials = self.study.get_trials(deepcopy=False)
        first = len(trials) - len(records)
        self._optuna_trials = {
            record.number: optuna.trial.Trial(self.study, trials[first + index]._trial_id)
            for index, record in enumerate(records)
            if record.outcome in UNFINISHED_OUTCOMES
        }
        self._told = sum(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in trials)
        self._by_design = sum(record.origin.startswith((QUASI_RANDOM, "qmc", "grid")) for record in records)
        self._seen = Counter(_key(record.params) for record in records if record.replicate_of is None)

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher; ours lives in the journal."""
        return {}

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing: the journal has it."""

    # --- Suggesting ---------------------------------------------------------------------------------------------------

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self.stop_requested():
            return str(Searcher.FINISHED)
        self._judge_suspects()
        if len(self._live) >= self.max_concurrent or self._waits_for_a_whole_gpu():
            return None
        number = self._next_trial()
        if number is None:
            return None if self._live or self._suspects else str(Searcher.FINISHED)
        record = self.journal.trial(number)
        attempts = self.journal.attempts(number)
        alone = any(attempt.cause == Cause.OUT_OF_MEMORY for attempt in attempts)
        attempt = self.journal.start_attempt(number, alone=alone)
        self._live[trial_id] = Live(number, attempt, alone, dead_nodes())
        return {
            "trial": number,
            "attempt": attempt,
            "alone": alone,
            "replicate": record.replicate_of is not None,
            "config": record.config,
            "directory": str(trial_directory(self.directory, number)),
            "gpu": self.sweep.config.resources.gpu,
            "seconds": 60 * self.sweep.config.evaluation_minutes,
        }

    def _waits_for_a_whole_gpu(self) -> bool:
        """Whether a trial that must be alone has not begun yet: new ones would take the shares that become free."""
        alone = (live for live in self._live.values() if live.alone)
        return any(not self.journal.has_begun(live.number, live.attempt) for live in alone)

    def _next_trial(self) -> int | None:
        """One that is to run now; None while there is none, or no more."""
        if self._unfinished:
            number = self._unfinished.popleft()
            self.journal.reopen_trial(number)
            return number
        if self._drawn < self.sweep.num_trials:
            return self._ask()
        if not self._live and not self._suspects:
            for number, seed in missing_replicates(self.sweep, self.journal):
                self._unfinished.append(self._replicate(self.journal.trial(number), seed))
            return self._unfinished.popleft() if self._unfinished else None
        return None

    def _ask(self) -> int:
        """A new trial, in the journal before anybody can run it."""
        origin, fixed = self._proposal()
        trial, values = self._suggested(fixed)
        params = {name: value for name, value in values.items() if name in fixed or name in trial.params}
        times = self._seen[_key(params)]
        if times and SEED not in params:  # the same again teaches only what another seed does
            origin += f"{TIMES}{times + 1} with these values"
            values = values | {SEED: int(self.sweep.config.base["train"].get("seed", 0)) + times}
        self._seen[_key(params)] += 1
        self._drawn += 1
        return self._add(trial, params, values, origin)

    def _proposal(self) -> tuple[str, dict[str, Any]]:
        """What proposes the next trial, and the values that are fixed before the sampler fills in the rest."""
        sampler, space = self.sweep.config.sampler, self.sweep.space
        if self._points:
            name = self._points.popleft()
            return f"point {name}", self.sweep.config.points[name]
        if sampler.name == "grid":
            self._by_design += 1
            return "grid", grid_point(space, self._by_design - 1)
        waiting = sampler.name in MODELS and self._told < sampler.startup_trials
        if sampler.name == "qmc" or (waiting and self._drawn >= sampler.startup_trials):
            self._by_design += 1
            origin = "qmc" if sampler.name == "qmc" else f"{QUASI_RANDOM}: too few results yet"
            return origin, quasi_random(space, self._by_design - 1, sampler.seed)
        return f"{sampler.name} start-up" if waiting else sampler.name, {}

    def _suggested(self, fixed: Mapping[str, Any]) -> tuple[optuna.trial.Trial, dict[str, Any]]:
        """Optuna's next trial with these values fixed, and all its values."""
        if self.sweep.space.nodes and fixed:
            self.study.enqueue_trial(dict(fixed))
        trial = self.study.ask()
        suggested = self.sweep.space.suggest(trial)
        return trial, suggested if self.sweep.space.nodes else dict(fixed)

    def _replicate(self, record: TrialRecord, seed: int) -> int:
        trial, values = self._suggested(record.params)
        return self._add(trial, record.params, values | {SEED: seed}, f"confirms trial {record.number}", record.number)

    def _add(
        self,
        trial: optuna.trial.Trial,
        params: dict[str, Any],
        values: Mapping[str, Any],
        origin: str,
        replicate_of: int | None = None,
    ) -> int:
        number, self._next = self._next, self._next + 1
        self._optuna_trials[number] = trial
        self.journal.add_trial(number, params, self.sweep.trial(values).to_yaml(), origin, replicate_of)
        if isinstance(self.sweep.config.scheduler, PbtConfig):
            now = int(time.time() * 1000)
            numbers = {name: value for name, value in params.items() if isinstance(value, int | float)}
            self.journal.add_points(number, [Point(f"{Prefix.PARAM}{n}", 0, float(v), now) for n, v in numbers.items()])
        return number

    # --- Telling ------------------------------------------------------------------------------------------------------

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: the scheduler has written it to the journal."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:  # noqa: ARG002
        live = self._live.pop(trial_id)
        if self.journal.outcome(live.number) == Outcome.RUNNING:
            self._ended_without_verdict(live)
        else:
            self.journal.end_attempt(live.number, live.attempt)
            self._tell_if_final(live.number)

    def _ended_without_verdict(self, live: Live) -> None:
        """A crash, memory that ran out, a dead worker or node, or a change of parameters."""
        attempt = self.journal.attempts(live.number)[-1]
        if attempt.ended is not None:
            self._try_again(live, attempt)
            return
        hang = trial_directory(self.directory, live.number) / HANG_FILE
        if hang.is_file() and hang.stat().st_size:
            minutes = self.sweep.config.evaluation_minutes
            error = f"{hang.read_text()}\nHung: no evaluation within {minutes:g} minutes"
            self.journal.end_attempt(live.number, live.attempt, error, Cause.HUNG)
            self._try_again(live, self.journal.attempts(live.number)[-1])
        elif self.stop_requested():
            self.journal.end_attempt(live.number, live.attempt, cause=Cause.STOPPED)
            self.journal.end_trial(live.number, Outcome.INTERRUPTED, "stopped before its next evaluation")
        else:
            self._suspects.append(Suspect(live, time.monotonic() + NODE_LOSS_SECONDS))
            self._judge_suspects()

    def _judge_suspects(self) -> None:
        """Whether a process died alone, which counts against its trial, or with its node, which does not."""
        for suspect in list(self._suspects):
            live = suspect.live
            node = self.journal.environment(live.number, live.attempt).get("node", "")
            dead = dead_nodes()
            if node in dead or (not node and dead - live.dead_nodes):
                self.journal.end_attempt(live.number, live.attempt, "its node was lost", Cause.NODE_LOST)
            elif node_is_here(node) or time.monotonic() > suspect.deadline:
                self.journal.end_attempt(live.number, live.attempt, "the worker process died", Cause.DIED)
            else:
                continue
            self._suspects.remove(suspect)
            self._try_again(live, self.journal.attempts(live.number)[-1])

    def _try_again(self, live: Live, attempt: AttemptRecord) -> None:
        """Puts the trial back in front, or ends it where it failed too often."""
        reason = ""
        match attempt.cause:
            case Cause.OUT_OF_MEMORY if live.alone or not self.sweep.config.resources.gpu:
                reason = "out of GPU memory, also alone on a GPU"
            case Cause.CRASHED | Cause.DIED | Cause.HUNG:
                failures = self.journal.failures(live.number)
                if len(failures) > self.sweep.config.retries:
                    reason = failures[-1].error.strip().splitlines()[-1]
        if reason:
            self.journal.end_trial(live.number, Outcome.FAILED, reason)
            self._tell_if_final(live.number)
        else:
            self._unfinished.appendleft(live.number)

    def _tell_if_final(self, number: int) -> None:
        record = self.journal.trial(number)
        if not STATES[record.outcome].is_finished():
            return
        trial = self._optuna_trials.pop(number)
        objectives = self.sweep.config.objectives
        for name, value in constraint_values(self.sweep, record.outcome, self.journal.last_metrics(number)).items():
            trial.set_constraint(name, value)
        for step, value in intermediate_values(objectives, self.journal, record).items():
            trial.report(value, step)
        trial.set_user_attr("outcome", record.outcome)
        state = STATES[record.outcome]
        values = final_values(objectives, self.journal, record) if state == TrialState.COMPLETE else None
        self.study.tell(trial, values, state=state)
        self._told += state in (TrialState.COMPLETE, TrialState.PRUNED)


def _key(params: Mapping[str, Any]) -> str:
    return json.dumps(params, sort_keys=True)
