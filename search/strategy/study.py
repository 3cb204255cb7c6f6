"""A sweep's Optuna study, and what Optuna is told about each outcome.

    completed -> COMPLETE with the objectives at full fidelity
    pruned    -> PRUNED, with every intermediate value where there is one objective (Optuna refuses them with several)
    diverged  -> PRUNED with a violated constraint, which teaches TPE to stay away; FAIL would teach it nothing
    impossible -> the same
    failed    -> FAIL
    interrupted, running -> RUNNING, until they are resumed

It lives in memory and is rebuilt from the journal. Its trials are the known points of earlier sweeps, then the
journal's trials in order, without those of blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import NSGAIIISampler, NSGAIISampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.config.sweep import Sweep
from search.journal.journal import Journal
from search.journal.records import TrialRecord
from search.names import INFEASIBLE_OUTCOMES, Outcome
from search.strategy.warm_start import warm_start

DIVERGED_CONSTRAINT = "diverged"
STATES = {
    Outcome.COMPLETED: TrialState.COMPLETE,
    Outcome.PRUNED: TrialState.PRUNED,
    Outcome.DIVERGED: TrialState.PRUNED,
    Outcome.IMPOSSIBLE: TrialState.PRUNED,
    Outcome.FAILED: TrialState.FAIL,
    Outcome.INTERRUPTED: TrialState.RUNNING,
    Outcome.RUNNING: TrialState.RUNNING,
}
GENETIC: dict[str, type[NSGAIISampler | NSGAIIISampler]] = {"nsga2": NSGAIISampler, "nsga3": NSGAIIISampler}


def build_study(sweep: Sweep, journal: Journal, storage: BaseStorage | None = None) -> optuna.Study:
    """Builds the Optuna study of everything in the journal, in memory unless a storage is given."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    records = [record for record in journal.trials() if record.block is None]
    study = optuna.create_study(
        study_name=sweep.config.name,
        storage=storage,
        directions=["minimize"] * len(sweep.config.objectives),
    )
    for known in warm_start(journal):
        study.add_trial(_known_point(sweep, known))
    for record in records:
        study.add_trial(_frozen(sweep, journal, record))
    return study


def _known_point(sweep: Sweep, known: Mapping[str, Any]) -> FrozenTrial:
    params, distributions = searched(sweep.space.parameters(), known["params"])
    return create_trial(
        state=TrialState.COMPLETE,
        values=[known["metrics"][name] for name in sweep.config.objectives],
        params=params,
        distributions=distributions,
        user_attrs={"outcome": "completed", "origin": "an earlier sweep"},
        system_attrs=_generation(sweep),
        constraints=constraint_values(sweep, "completed", known["metrics"]),
    )


def _frozen(sweep: Sweep, journal: Journal, record: TrialRecord) -> FrozenTrial:
    params, distributions = searched(sweep.space.parameters(), record.params)
    state = STATES[record.outcome]
    intermediate = intermediate_values(sweep.config.objectives, journal, record) if state.is_finished() else {}
    values = None
    if state == TrialState.COMPLETE:
        values = final_values(sweep.config.objectives, journal, record)
    elif state == TrialState.PRUNED and intermediate:
        values = [intermediate[max(intermediate)]]  # what Optuna itself gives a pruned trial
    return create_trial(
        state=state,
        values=values,
        params=params,
        distributions=distributions,
        user_attrs={"outcome": record.outcome, "origin": record.origin},
        system_attrs=_generation(sweep) if state == TrialState.COMPLETE else None,
        intermediate_values=intermediate,
        constraints=constraint_values(sweep, record.outcome, journal.last_metrics(record.number))
        if state.is_finished()
        else None,
    )


def _generation(sweep: Sweep) -> dict[str, Any]:
    """Makes a trial one of the first generation, from which a genetic sampler chooses the parents of the next."""
    sampler = GENETIC.get(sweep.config.sampler.name)
    return {sampler._get_generation_key(): 0} if sampler else {}


def searched(
    distributions: Mapping[str, BaseDistribution], params: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
    """The searched ones among a trial's parameters, and their distributions."""
    names = [name for name in params if name in distributions]
    return {name: params[name] for name in names}, {name: distributions[name] for name in names}


def final_values(objectives: Sequence[str], journal: Journal, record: TrialRecord) -> list[float]:
    """Objectives of a completed trial's last evaluation."""
    metrics = journal.evaluations(record.number)[record.step]
    return [metrics[name] for name in objectives]


def intermediate_values(objectives: Sequence[str], journal: Journal, record: TrialRecord) -> dict[int, float]:
    """The objective at each evaluation; empty with several objectives, where Optuna takes none."""
    if len(objectives) > 1:
        return {}
    return {step: metrics[objectives[0]] for step, metrics in journal.evaluations(record.number).items()}


def constraint_values(sweep: Sweep, outcome: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """Violation of each constraint, at most 0 where it holds; constraints on metrics only once there are metrics."""
    if sweep.config.sampler.name == "cmaes":  # it warns about every constraint it does not use
        return {}
    found = {DIVERGED_CONSTRAINT: 1.0 if outcome in INFEASIBLE_OUTCOMES else -1.0}
    if metrics:
        texts = sweep.config.constraints
        found |= {text: each.violation(metrics) for text, each in zip(texts, sweep.constraints, strict=True)}
    return found
