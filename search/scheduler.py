"""Early stopping, and why a trial was stopped. The rungs are plain logic over journal records; the Tune scheduler
around them writes each report to the journal before it decides, so that a decision never rests on something lost."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from search.analysis import places
from search.journal import Journal, RungRecord
from vaegan_core.evaluation import Evaluation

# Keys of what a worker reports to Tune
EVENT = "event"
PAYLOAD = "payload"
RESOLVED = "resolved_config"
ENVIRONMENT = "environment"
ERROR = "error"

# Kinds of event
STARTED = "started"
EVALUATION = "evaluation"
CRASHED = "crashed"


class Rungs:
    """Asynchronous successive halving over one or several objectives (Li et al. 2020, alg. 2, stopping variant).

    At a rung a trial goes on when its place among all that have reached it is within ceil(n / reduction_factor).
    """

    def __init__(self, steps: Sequence[int], reduction_factor: int, records: Sequence[RungRecord] = ()) -> None:
        self.steps = tuple(steps)
        self.reduction_factor = reduction_factor
        self._records: dict[tuple[int, int], RungRecord] = {(r.rung, r.trial): r for r in records}

    def reached(self, trial: int, step: int) -> int | None:
        """The highest rung at or below `step`, when the trial has not been judged there yet."""
        rung = sum(step >= level for level in self.steps) - 1
        return rung if rung >= 0 and (rung, trial) not in self._records else None

    def dropped(self, trial: int) -> RungRecord | None:
        """The verdict that the trial must stop, if any: the driver may have died before it was carried out."""
        records = (self._records.get((rung, trial)) for rung in range(len(self.steps)))
        return next((record for record in records if record is not None and not record.kept), None)

    def judge(self, trial: int, rung: int, step: int, objectives: tuple[float, ...]) -> RungRecord:
        """Adds the trial to the rung; its record says whether it goes on."""
        others = [record.objectives for (level, _), record in self._records.items() if level == rung]
        values = np.array([*others, objectives])
        kept = bool(places(values)[-1] <= math.ceil(len(values) / self.reduction_factor))
        record = RungRecord(trial, rung, step, objectives, kept)
        self._records[(rung, trial)] = record
        return record


class SweepScheduler(FIFOScheduler):  # type: ignore[misc]
    """Receives every report first: journal, then verdict.

    `stop_requested()` is asked at each evaluation; a trial stopped for it is interrupted, to be taken up again.
    """

    def __init__(
        self, journal: Journal, rungs: Rungs, objectives: Sequence[str], stop_requested: Callable[[], bool]
    ) -> None:
        super().__init__()
        self.journal = journal
        self.rungs = rungs
        self.objectives = tuple(objectives)
        self.stop_requested = stop_requested

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its scheduler; ours lives in the journal."""
        return {}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:  # noqa: ARG002
        number, attempt = trial.config["trial"], trial.config["attempt"]
        event = result.get(EVENT)
        if event == STARTED:
            self.journal.start_trial(number, attempt, result[RESOLVED], json.loads(result[ENVIRONMENT]))
        elif event == CRASHED:
            self.journal.end_attempt(number, attempt, result[ERROR])
        elif event == EVALUATION and PAYLOAD in result:
            return self._receive(number, Evaluation.from_bytes(result[PAYLOAD]))
        return str(TrialScheduler.CONTINUE)

    def _receive(self, number: int, evaluation: Evaluation) -> str:
        self.journal.add_evaluation(number, evaluation)
        if evaluation.outcome in ("completed", "diverged"):
            self.journal.end_trial(number, evaluation.outcome, evaluation.reason)
            return str(TrialScheduler.STOP)
        rung = self.rungs.reached(number, evaluation.step)
        if rung is not None:
            objectives = tuple(evaluation.metrics[name] for name in self.objectives)
            self.journal.add_rung(self.rungs.judge(number, rung, evaluation.step, objectives))
        dropped = self.rungs.dropped(number)
        if dropped is not None:
            share = f"the best 1/{self.rungs.reduction_factor} of rung {dropped.rung}"
            self.journal.end_trial(number, "pruned", f"not among {share} at step {dropped.step}")
            return str(TrialScheduler.STOP)
        if self.stop_requested():
            self.journal.end_trial(number, "interrupted", f"stopped at step {evaluation.step}")
            return str(TrialScheduler.STOP)
        return str(TrialScheduler.CONTINUE)
