"""The standings of a sweep, from its journal: trials by rank, their front, and what fresh seeds made of the best."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from search.config.sweep import Sweep
from search.journal.journal import Journal
from search.journal.meta import Meta
from search.journal.records import TrialRecord
from search.names import FINAL_OUTCOMES, Outcome
from search.standings.candidates import FIRST_FRESH_SEED, Candidate, Confirmation, best_first, on_front
from search.standings.scales import Scales

Metrics = Mapping[int, Mapping[str, float]]
"""Validation metrics of completed trials' last evaluations, by number."""


@dataclass(frozen=True)
class Standings:
    """The completed trials of a sweep, without those that stand apart."""

    best: list[TrialRecord]
    """Best first, see `best_first`."""
    front: set[int]
    """Feasible trials that no other feasible trial beats on every objective."""
    infeasible: set[int]
    """Trials that violate a constraint."""
    metrics: Metrics
    confirmations: dict[int, Confirmation]
    scales: Scales

    @property
    def hypervolume(self) -> float:
        return self.scales.hypervolume(
            self.metrics[trial.number] for trial in self.best if trial.number not in self.infeasible
        )


def standings(sweep: Sweep, journal: Journal) -> Standings:
    """Ranks the completed trials of a journal."""
    completed = journal.trials(Outcome.COMPLETED)
    metrics = _metrics(journal, completed)
    objectives, scales = sweep.config.objectives, _scales(sweep, journal)
    replicates = _replicates(journal.trials())
    confirmations = {
        number: Confirmation.of(
            [metrics[each.number] for each in members if each.outcome == Outcome.COMPLETED], len(members), objectives
        )
        for number, members in replicates.items()
    }
    trials = {trial.number: trial for trial in completed if not trial.apart}
    candidates = [
        Candidate(
            number,
            metrics[number],
            confirmations[number].mean if number in confirmations else {},
            _feasible(sweep, metrics, number, replicates.get(number, [])),
            number in confirmations and confirmations[number].lost,
        )
        for number in trials
    ]
    return Standings(
        best=[trials[number] for number in best_first(candidates, objectives, scales)],
        front=on_front(candidates, objectives),
        infeasible={candidate.number for candidate in candidates if not candidate.feasible},
        metrics={number: metrics[number] for number in trials},
        confirmations=confirmations,
        scales=scales,
    )


def best_of(sweep: Sweep, journal: Journal, numbers: Iterable[int]) -> list[int]:
    """Numbers of completed trials, best first, by what they reached themselves: without their confirmations."""
    metrics = _metrics(journal, [journal.trial(number) for number in numbers])
    candidates = [Candidate(number, values, feasible=sweep.feasible(values)) for number, values in metrics.items()]
    return best_first(candidates, sweep.config.objectives, _scales(sweep, journal))


def missing_replicates(sweep: Sweep, journal: Journal) -> list[tuple[int, int]]:
    """(trial, seed) of the replicates that `confirm` asks for and that have not begun.

    Every trial gets the same fresh seeds, so that seeds add no difference between trials.
    """
    confirm = sweep.config.confirm
    if confirm is None:
        return []
    trials = journal.trials()
    completed = [trial for trial in trials if trial.outcome == Outcome.COMPLETED and not trial.apart]
    feasible = [number for number, values in _metrics(journal, completed).items() if sweep.feasible(values)]
    first_seed = FIRST_FRESH_SEED + int(sweep.config.base["train"].get("seed", 0))
    missing = []
    for number in best_of(sweep, journal, feasible)[: confirm.top]:
        begun = sum(trial.replicate_of == number for trial in trials)
        missing += [(number, first_seed + index) for index in range(begun, confirm.seeds)]
    return missing


def _replicates(trials: Iterable[TrialRecord]) -> dict[int, list[TrialRecord]]:
    """Replicates that have ended, by the trial that they repeat."""
    replicates: dict[int, list[TrialRecord]] = {}
    for trial in trials:
        if trial.replicate_of is not None and trial.outcome in FINAL_OUTCOMES:
            replicates.setdefault(trial.replicate_of, []).append(trial)
    return replicates


def _feasible(sweep: Sweep, metrics: Metrics, trial: int, replicates: Sequence[TrialRecord]) -> bool:
    """Whether a trial violates no constraint: in the mean over its replicates, which decides, and by itself."""
    completed = [metrics[each.number] for each in replicates if each.outcome == Outcome.COMPLETED]
    names = {constraint.metric for constraint in sweep.constraints}
    mean = {
        name: statistics.fmean(each[name] for each in completed)
        for name in names
        if completed and all(name in each for each in completed)
    }
    return sweep.feasible(metrics[trial]) and (not completed or sweep.feasible(mean))


def _metrics(journal: Journal, completed: Iterable[TrialRecord]) -> dict[int, dict[str, float]]:
    return {trial.number: journal.evaluations(trial.number)[trial.step] for trial in completed}


def _scales(sweep: Sweep, journal: Journal) -> Scales:
    return Scales.of(json.loads(journal.meta(Meta.BASELINES)), sweep.config.objectives)
