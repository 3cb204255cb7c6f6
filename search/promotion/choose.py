"""Which trial is to be promoted: the recommended one of a sweep, the best on one objective, or one that is named."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities import Run

from search.names import Kind, Tag
from search.redaction import redact
from search.tracking.reader import (
    BEGINNING,
    RUN_ID,
    SWEEP_AND_TRIAL,
    SweepRun,
    TrialRun,
    find_sweep,
    require_sweep,
    runs_beginning,
    sweep_of_run,
)
from vaegan_core.evaluation import METRICS
from vaegan_core.spelling import did_you_mean


@dataclass(frozen=True)
class Choice:
    """A trial, its sweep, and why it was chosen, in words."""

    sweep: SweepRun
    trial: TrialRun
    why: str


def choose(client: MlflowClient, target: str, best: str | None = None) -> Choice:
    """The trial that `target` names: NAME (of a sweep), NAME/17 (its trial 17), or a run's id or unambiguous beginning.

    Of a sweep it is the recommended trial, or with `best` the one that is best on that objective. Raises ValueError
    where there is no such run, it is no trial of a sweep, or the sweep has nothing to promote.
    """
    if numbered := SWEEP_AND_TRIAL.fullmatch(target):
        named = _numbered(find_sweep(client, numbered["sweep"]), int(numbered["trial"]))
    elif RUN_ID.fullmatch(target):
        named = _of_run(client, runs_beginning(client, target, most=2), target)
    else:
        try:
            sweep = find_sweep(client, target)
        except ValueError as unknown:
            runs = runs_beginning(client, target, most=2) if BEGINNING.fullmatch(target) else []
            if not runs:
                raise unknown from None
            named = _of_run(client, runs, target)
        else:
            return _of_sweep(client, sweep, best)
    if best is not None:
        raise ValueError(
            f"--best chooses among the trials of a sweep, but {target} is one trial; leave one of them out"
        )
    return named


def sweep_name(client: MlflowClient, target: str) -> str:
    """Name of the sweep that `target` names, as for `choose`, or whose trial it names. The sweep of a NAME may be gone.

    Raises ValueError for a run that is no trial of a sweep.
    """
    if BEGINNING.fullmatch(target):
        with suppress(ValueError):
            require_sweep(client, target)
            return target
    if BEGINNING.fullmatch(target) or RUN_ID.fullmatch(target):
        runs = runs_beginning(client, target, most=2)
        if runs or RUN_ID.fullmatch(target):
            return _of_run(client, runs, target).sweep.name
    return target.partition("/")[0]


# --- A named trial ----------------------------------------------------------------------------------------------------


def _numbered(sweep: SweepRun, number: int) -> Choice:
    trials = {trial.number: trial for trial in sweep.trials}
    if number not in trials:
        known = f"its trials: {min(trials)} to {max(trials)}" if trials else "none has begun"
        raise ValueError(f"sweep {sweep.name} has no trial {number}; {known}")
    return Choice(sweep, trials[number], "named")


def _of_run(client: MlflowClient, runs: list[Run], given: str) -> Choice:
    if not runs:
        raise ValueError(f"there is no run {given} at {redact(client.tracking_uri)}")
    if len(runs) > 1:
        raise ValueError(f"{given} is the beginning of more than one run's id; give more of it")
    [run] = runs
    tags, kind = run.data.tags, run.data.tags.get(Tag.KIND)
    parent = tags.get("mlflow.parentRunId", "")
    if kind in (Kind.REPLICATE, Kind.RERUN):
        raise ValueError(f"run {given} is a {kind} of run {parent}; promote that one")
    if kind == Kind.SWEEP:
        raise ValueError(f"run {given} is the sweep {run.info.run_name} itself; promote it by its name")
    if kind != Kind.TRIAL or not parent:
        raise ValueError(f"run {given} is no trial of a sweep, so it has no baselines, and nothing to be judged by")
    sweep = sweep_of_run(client, client.get_run(parent))
    return Choice(sweep, next(trial for trial in sweep.trials if trial.run_id == run.info.run_id), "named")


# --- The best of a sweep ----------------------------------------------------------------------------------------------


def _of_sweep(client: MlflowClient, sweep: SweepRun, best: str | None) -> Choice:
    objective = None if best is None else _objective(sweep, best)
    if client.get_run(sweep.run_id).info.status == "RUNNING":
        raise ValueError(
            f"sweep {sweep.name} is still running, or was cut off, so its best trial may change; wait for it, end it "
            f"with `vaegan stop {sweep.name}`, or name one of its trials: {sweep.name}/NUMBER"
        )
    ranked = sweep.ranked
    if not ranked:
        raise ValueError(f"{_nothing_completed(sweep)}, so there is nothing to promote")
    feasible = [trial for trial in ranked if trial.feasible]
    if not feasible:
        raise ValueError(f"every completed trial of {sweep.name} violates a constraint, so there is nothing to promote")
    if objective is None:
        return Choice(sweep, feasible[0], "recommended")
    sound = [trial for trial in feasible if not trial.lost] or feasible
    values = {trial.number: trial.confirmed.get(objective, trial.final[objective]) for trial in sound}
    return Choice(sweep, min(sound, key=lambda trial: values[trial.number]), f"best on {objective}")


def _objective(sweep: SweepRun, given: str) -> str:
    """The objective of the sweep that `given` names, with or without `val/`."""
    for name in sweep.objectives:
        if given in (name, name.removeprefix("val/")):
            return name
    other = f"; {given} is a metric, but no objective of it" if given in METRICS else ""
    meant = did_you_mean(given, sweep.objectives)
    known = ", ".join(sweep.objectives)
    raise ValueError(f"--best must name an objective of {sweep.name} ({known}), but got {given!r}{other}{meant}")


def _nothing_completed(sweep: SweepRun) -> str:
    if not sweep.trials:
        return f"no trial of {sweep.name} has begun"
    own = [trial for trial in sweep.trials if Tag.BLOCK not in trial.tags]
    if not own:
        return f"the trials of {sweep.name} answer questions and compete for nothing"
    counts = Counter(trial.outcome for trial in own)
    ends = ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())
    return f"no trial of {sweep.name} reached full fidelity ({ends})"
