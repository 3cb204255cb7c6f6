"""Tune's scheduler: every report of a trial is written to the journal first and judged afterwards, so that no decision
rests on something lost. The rules are in search/strategy/stopping.py and population.py."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from search.config.strategies import PbtConfig
from search.config.sweep import Sweep
from search.journal.journal import Journal
from search.journal.records import Cause
from search.names import Outcome
from search.redaction import redact
from search.running.messages import Assignment, Ended, Evaluated, Started, from_result
from search.strategy.population import Population, param_points
from search.strategy.stopping import StoppingRule
from vaegan_core.evaluation import Evaluation


class SweepScheduler(FIFOScheduler):  # type: ignore[misc]
    """Journal first, then verdict.

    `stop_requested()` is asked at each evaluation; a trial stopped for it is interrupted and can be resumed.
    """

    def __init__(self, sweep: Sweep, journal: Journal, rule: StoppingRule, stop_requested: Callable[[], bool]) -> None:
        super().__init__()
        self.sweep = sweep
        self.journal = journal
        self.stop_requested = stop_requested
        self.rule = rule
        pbt = isinstance(sweep.config.scheduler, PbtConfig)
        self.population = Population(sweep, journal) if pbt else None
        self._apart = {trial.number for trial in journal.trials() if trial.apart}

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its scheduler; ours lives in the journal."""
        return {}

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Asks Ray for a whole GPU for a trial that must be alone, before it starts."""
        super().on_trial_add(tune_controller, trial)
        assignment = Assignment.of(trial.config)
        if assignment.apart:
            self._apart.add(assignment.trial)
        if assignment.alone:
            resources = self.sweep.config.resources
            trial.update_resources({"cpu": resources.cpu, "gpu": math.ceil(float(resources.gpu))})

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """Leaves it to Tune: a worker that has ended a trial takes the newest one. If it took one whose own worker is
        still starting, that worker would be ended, and another one started for the newest, at each trial's end."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:  # noqa: ARG002
        assignment = Assignment.of(trial.config)
        number, attempt = assignment.trial, assignment.attempt
        decision = str(TrialScheduler.CONTINUE)
        with self.journal.transaction():  # a report and what follows from it
            match from_result(result):
                case Started(config, environment, from_step):
                    self.journal.start_trial(number, attempt, config, environment, from_step)
                case Ended(cause, error):
                    self.journal.end_attempt(number, attempt, redact(error), cause)
                case Evaluated(evaluation, saved):
                    self.journal.add_saved(saved)
                    decision = self._receive(number, attempt, evaluation)
        return decision

    def _receive(self, number: int, attempt: int, evaluation: Evaluation) -> str:
        self.journal.add_evaluation(number, evaluation, attempt)
        if evaluation.outcome in ("completed", "diverged"):
            self.journal.end_trial(number, Outcome(evaluation.outcome), evaluation.reason)
            return str(TrialScheduler.STOP)
        if number not in self._apart:
            reason = self.rule.verdict(number, evaluation.step, evaluation.metrics)
            if reason:
                self.journal.end_trial(number, Outcome.PRUNED, reason)
                return str(TrialScheduler.STOP)
            if self._mutated(number, attempt, evaluation):
                return str(TrialScheduler.STOP)
        if self.stop_requested():
            self.journal.end_trial(number, Outcome.INTERRUPTED, f"stopped at step {evaluation.step}")
            return str(TrialScheduler.STOP)
        return str(TrialScheduler.CONTINUE)

    def _mutated(self, number: int, attempt: int, evaluation: Evaluation) -> bool:
        """Whether the trial continues from another trial's state: this attempt ends, and the next one starts there."""
        record = self.population and self.population.exploit(number, evaluation.step, evaluation.metrics)
        if not self.population or not record:
            return False
        self.journal.mutate_trial(record, self.population.config_of(record))
        time = max((point.time for point in evaluation.points), default=0)
        self.journal.add_points(number, param_points(record.params, record.step, time))
        self.journal.end_attempt(number, attempt, cause=Cause.MUTATED)
        return True
