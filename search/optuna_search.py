"""The sampler's contract with Tune: what is suggested, and what Optuna is told of each outcome.

    completed -> COMPLETE with the objectives at full fidelity
    pruned    -> PRUNED, with every intermediate value where there is one objective (Optuna refuses them with several)
    diverged  -> PRUNED with a violated constraint, which teaches TPE to stay away; FAIL would teach it nothing
    failed    -> FAIL
    interrupted, running -> RUNNING, until they are taken up again

The study lives in memory and is rebuilt from the journal; only the driver touches it.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial
from ray.tune.search import Searcher

from search.config import SamplerConfig, Sweep
from search.journal import Journal, TrialRecord

DIVERGED_CONSTRAINT = "diverged"
STATES = {
    "completed": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "diverged": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "interrupted": TrialState.RUNNING,
    "running": TrialState.RUNNING,
}


def make_sampler(config: SamplerConfig, num_told: int = 0) -> BaseSampler:
    """The sampler by name; after a resume it must not repeat its first draws, so the seed moves with `num_told`."""
    seed = config.seed + num_told
    if config.name == "random":
        return RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(
            seed=seed, n_startup_trials=config.startup_trials, multivariate=True, group=True, constant_liar=True
        )


def trial_directory(sweep_directory: Path, number: int) -> Path:
    return sweep_directory / "trials" / f"{number:05d}"


def build_study(sweep: Sweep, journal: Journal) -> optuna.Study:
    """Optuna's study of everything in the journal, trial by trial under the journal's own numbers."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    records = journal.trials()
    study = optuna.create_study(
        study_name=sweep.config.name,
        sampler=make_sampler(sweep.config.sampler, len(records)),
        directions=["minimize"] * len(sweep.config.objectives),
    )
    for record in records:
        study.add_trial(_frozen(sweep, journal, record))
    return study


def _frozen(sweep: Sweep, journal: Journal, record: TrialRecord) -> FrozenTrial:
    distributions = sweep.space.parameters()
    state = STATES[record.outcome]
    intermediate = _intermediate(sweep.config.objectives, journal, record) if state.is_finished() else {}
    values = None
    if state == TrialState.COMPLETE:
        values = _values(sweep.config.objectives, journal, record)
    elif state == TrialState.PRUNED and intermediate:
        values = [intermediate[max(intermediate)]]  # What Optuna itself gives a pruned trial
    return create_trial(
        state=state,
        values=values,
        params={name: record.params[name] for name in record.params if name in distributions},
        distributions={name: distributions[name] for name in record.params if name in distributions},
        user_attrs={"outcome": record.outcome},
        intermediate_values=intermediate,
        constraints=_constraints(record) if state.is_finished() else None,
    )


def _values(objectives: Sequence[str], journal: Journal, record: TrialRecord) -> list[float]:
    metrics = journal.evaluations(record.number)[record.step]
    return [metrics[name] for name in objectives]


def _intermediate(objectives: Sequence[str], journal: Journal, record: TrialRecord) -> dict[int, float]:
    if len(objectives) > 1:
        return {}
    return {step: metrics[objectives[0]] for step, metrics in journal.evaluations(record.number).items()}


def _constraints(record: TrialRecord) -> dict[str, float]:
    return {DIVERGED_CONSTRAINT: 1.0 if record.outcome == "diverged" else -1.0}


class OptunaSearch(Searcher):  # type: ignore[misc]
    """Suggests trials to Tune: unfinished ones first, then named points, then the sampler's, up to the budget."""

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
        self._live: dict[str, tuple[int, int]] = {}  # Tune's trial id -> our trial number and attempt
        records = journal.trials()
        self._unfinished = deque(r.number for r in records if r.outcome in ("running", "interrupted"))
        used = {record.origin for record in records}
        self._points = deque(name for name in sweep.config.points if f"point {name}" not in used)
        trials = self.study.get_trials(deepcopy=False)
        self._optuna_trials = {n: optuna.trial.Trial(self.study, trials[n]._trial_id) for n in self._unfinished}

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher; ours lives in the journal."""
        return {}

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing: the journal has it."""

    # --- Suggesting ---------------------------------------------------------------------------------------------------

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self.stop_requested():
            return str(Searcher.FINISHED)
        if len(self._live) >= self.max_concurrent:
            return None
        if self._unfinished:
            number = self._unfinished.popleft()
            self.journal.reopen_trial(number)
        elif len(self.study.get_trials(deepcopy=False)) < self.sweep.config.budget.trials:
            number = self._ask()
        else:
            return None if self._live else str(Searcher.FINISHED)
        attempt = self.journal.start_attempt(number)
        self._live[trial_id] = (number, attempt)
        return {
            "trial": number,
            "attempt": attempt,
            "config": self.journal.trial(number).config,
            "directory": str(trial_directory(self.directory, number)),
        }

    def _ask(self) -> int:
        """A new trial, in the journal before anybody can run it."""
        origin, point = self._origin(), {}
        if self._points:
            point = self.sweep.config.points[self._points.popleft()]
        if self.sweep.space.nodes and point:
            self.study.enqueue_trial(point)
        trial = self.study.ask()
        values = point | self.sweep.space.suggest(trial)
        config = self.sweep.trial(values)
        self._optuna_trials[trial.number] = trial
        self.journal.add_trial(trial.number, point | trial.params, config.to_yaml(), origin)
        return trial.number

    def _origin(self) -> str:
        if self._points:
            return f"point {self._points[0]}"
        sampler = self.sweep.config.sampler
        trials = self.study.get_trials(deepcopy=False)
        told = sum(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in trials)
        return (
            sampler.name if sampler.name == "random" or told >= sampler.startup_trials else f"{sampler.name} start-up"
        )

    # --- Telling ------------------------------------------------------------------------------------------------------

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: the scheduler has written it to the journal."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:  # noqa: ARG002
        number, attempt = self._live.pop(trial_id)
        if self.journal.outcome(number) == "running":
            self._ended_without_verdict(number, attempt)
        else:
            self.journal.end_attempt(number, attempt)
        record = self.journal.trial(number)
        if record.outcome in STATES and STATES[record.outcome].is_finished():
            self._tell(record)

    def _ended_without_verdict(self, number: int, attempt: int) -> None:
        """A crash or a dead worker: tried again from its last checkpoint, or failed when it happened too often."""
        if self.stop_requested() and not self.journal.attempt_error(number, attempt):
            self.journal.end_attempt(number, attempt)
            self.journal.end_trial(number, "interrupted", "stopped before its next evaluation")
            return
        self.journal.end_attempt(number, attempt, "the worker process died")
        failures = self.journal.failures(number)
        if len(failures) <= self.sweep.config.retries:
            self._unfinished.append(number)
        else:
            self.journal.end_trial(number, "failed", failures[-1].strip().splitlines()[-1])

    def _tell(self, record: TrialRecord) -> None:
        trial = self._optuna_trials.pop(record.number)
        objectives = self.sweep.config.objectives
        for name, value in _constraints(record).items():
            trial.set_constraint(name, value)
        for step, value in _intermediate(objectives, self.journal, record).items():
            trial.report(value, step)
        trial.set_user_attr("outcome", record.outcome)
        state = STATES[record.outcome]
        values = _values(objectives, self.journal, record) if state == TrialState.COMPLETE else None
        self.study.tell(trial, values, state=state)
