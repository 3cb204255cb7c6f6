"""Who stands where: full-fidelity trials by rank, their front, and what fresh seeds made of the best."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from search.config.sweep import Sweep
from search.journal.journal import Journal
from search.journal.meta import Meta
from search.journal.records import TrialRecord
from search.names import Outcome
from search.standings.pareto import fronts, hypervolume
from search.standings.scales import Scales, ranking

CONFIDENCE = 0.95
FIRST_FRESH_SEED = 1_000_000


@dataclass(frozen=True)
class Confirmation:
    """A trial's objectives over its replicates: other seeds than its own, for that one was chosen for being good."""

    completed: int
    """Replicates that reached full fidelity, of `begun`."""
    begun: int
    mean: dict[str, float]
    half_width: dict[str, float]
    """Of the 95 % interval of the mean (Student's t)."""


@dataclass(frozen=True)
class Standings:
    """Trials of full fidelity but replicates, best first; those with a confirmation before all others."""

    best: list[TrialRecord]
    front: set[int]
    """No other trial beats them on every objective, and they violate no constraint."""
    infeasible: set[int]
    metrics: dict[int, dict[str, float]]
    confirmations: dict[int, Confirmation]
    scales: Scales

    @property
    def hypervolume(self) -> float:
        feasible = [trial for trial in self.best if trial.number not in self.infeasible]
        return hypervolume([self.scales.scores(self.metrics[trial.number]) for trial in feasible])


def standings(sweep: Sweep, journal: Journal) -> Standings:
    completed = journal.trials(Outcome.COMPLETED)
    metrics = {trial.number: journal.evaluations(trial.number)[trial.step] for trial in completed}
    scales = Scales.of(json.loads(journal.meta(Meta.BASELINES)))
    objectives = sweep.config.objectives
    candidates = [trial for trial in completed if trial.replicate_of is None]
    infeasible = {trial.number for trial in candidates if not sweep.feasible(metrics[trial.number])}
    confirmations = _confirmations(journal, metrics, objectives)
    first = [t for t in candidates if t.number in confirmations and t.number not in infeasible]
    then = [t for t in candidates if t.number not in confirmations and t.number not in infeasible]
    last = [t for t in candidates if t.number in infeasible]
    means = {number: metrics[number] | found.mean for number, found in confirmations.items() if number in metrics}
    best = [
        *_ranked(first, means, objectives, scales),
        *_ranked(then, metrics, objectives, scales),
        *_ranked(last, metrics, objectives, scales),
    ]
    return Standings(
        best=best,
        front=_front([*first, *then], metrics, objectives),
        infeasible=infeasible,
        metrics={trial.number: metrics[trial.number] for trial in candidates},
        confirmations=confirmations,
        scales=scales,
    )


def best_of(sweep: Sweep, journal: Journal, numbers: Iterable[int]) -> list[int]:
    """Completed trials by rank among themselves, those that violate a constraint last."""
    trials = [journal.trial(number) for number in numbers]
    metrics = {trial.number: journal.evaluations(trial.number)[trial.step] for trial in trials}
    scales = Scales.of(json.loads(journal.meta(Meta.BASELINES)))
    order = _ranked(trials, metrics, sweep.config.objectives, scales)
    return sorted((t.number for t in order), key=lambda number: not sweep.feasible(metrics[number]))


def missing_replicates(sweep: Sweep, journal: Journal) -> list[tuple[int, int]]:
    """(trial, seed) of replicates that `confirm` asks for and nobody has begun, by what the trials reached themselves.

    All trials get the same fresh seeds, so that their differences are not the seeds'.
    """
    confirm = sweep.config.confirm
    if confirm is None:
        return []
    trials = journal.trials()
    candidates = [trial.number for trial in trials if trial.outcome == Outcome.COMPLETED and trial.replicate_of is None]
    metrics = {number: journal.evaluations(number)[journal.trial(number).step] for number in candidates}
    feasible = [number for number in candidates if sweep.feasible(metrics[number])]
    first_seed = FIRST_FRESH_SEED + int(sweep.config.base["train"].get("seed", 0))
    missing = []
    for number in best_of(sweep, journal, feasible)[: confirm.top]:
        begun = sum(trial.replicate_of == number for trial in trials)
        missing += [(number, first_seed + index) for index in range(begun, confirm.seeds)]
    return missing


def _confirmations(
    journal: Journal, metrics: dict[int, dict[str, float]], objectives: Sequence[str]
) -> dict[int, Confirmation]:
    replicates: dict[int, list[TrialRecord]] = {}
    for trial in journal.trials():
        if trial.replicate_of is not None:
            replicates.setdefault(trial.replicate_of, []).append(trial)
    found = {}
    for number, members in replicates.items():
        completed = [trial for trial in members if trial.outcome == Outcome.COMPLETED]
        if len(completed) < 2:
            continue
        values = {name: [metrics[trial.number][name] for trial in completed] for name in objectives}
        found[number] = Confirmation(
            len(completed),
            len(members),
            {name: statistics.fmean(each) for name, each in values.items()},
            {name: half_width(each) for name, each in values.items()},
        )
    return found


def half_width(values: Sequence[float]) -> float:
    """Of the 95 % interval of the mean of two or more values."""
    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)
    return float(quantile) * statistics.stdev(values) / math.sqrt(len(values))


def _ranked(
    trials: Sequence[TrialRecord], metrics: dict[int, dict[str, float]], objectives: Sequence[str], scales: Scales
) -> list[TrialRecord]:
    return [trials[index] for index in ranking([metrics[trial.number] for trial in trials], objectives, scales)]


def _front(trials: Sequence[TrialRecord], metrics: dict[int, dict[str, float]], objectives: Sequence[str]) -> set[int]:
    if not trials:
        return set()
    levels = fronts(np.array([[metrics[trial.number][name] for name in objectives] for trial in trials]))
    return {trial.number for trial, level in zip(trials, levels, strict=True) if level == 0}
