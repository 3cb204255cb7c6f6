"""The run that a person means: by its id, by the beginning of it, or by sweep and trial number."""

from __future__ import annotations

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from search.names import Kind, Outcome, Tag
from search.redaction import redact
from search.tracking.errors import is_refusal
from search.tracking.reader import (
    BEGINNING,
    RUN_ID,
    SWEEP_AND_TRIAL,
    experiments,
    find_sweep,
    require_sweep,
    runs_beginning,
)
from vaegan_core.spelling import did_you_mean

CANDIDATES = 1000
"""Runs that a mistyped id is looked for among, the newest ones."""
TRAINED = (Kind.TRIAL, Kind.REPLICATE, Kind.RERUN)


def find_run(client: MlflowClient, name: str) -> Run:
    """The run of a training that `name` names: an id, its first four or more digits, or SWEEP/NUMBER.

    Raises ValueError, with what is near or known, if there is none, if several begin so, or if it trained nothing.
    """
    if of_sweep := SWEEP_AND_TRIAL.fullmatch(name):
        run = _of_sweep(client, of_sweep["sweep"], int(of_sweep["trial"]))
    else:
        run = _by_id(client, name.lower()) if RUN_ID.fullmatch(name.lower()) else _by_beginning(client, name)
    return _trained(client, name, run)


def _of_sweep(client: MlflowClient, sweep: str, number: int) -> Run:
    parent = require_sweep(client, sweep)
    query = f"tags.`{Tag.SWEEP_ID}` = '{parent.data.tags[Tag.SWEEP_ID]}' and tags.`{Tag.TRIAL}` = '{number}'"
    for run in client.search_runs([parent.info.experiment_id], query):
        confirms_another = Tag.SEED in run.data.tags  # a promotion's, with the number of the trial that it repeats
        if run.data.tags.get(Tag.KIND) in (Kind.TRIAL, Kind.REPLICATE) and not confirms_another:
            return run
    numbers = [trial.number for trial in find_sweep(client, sweep).trials]
    known = f"its trials are 0 to {numbers[-1]}" if numbers else "it has none yet"
    raise ValueError(f"sweep {sweep} has no trial {number}; {known}")


def _by_id(client: MlflowClient, run_id: str) -> Run:
    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if not is_refusal(error):
            raise
    raise ValueError(
        f"there is no run {run_id} at {redact(client.tracking_uri)}{did_you_mean(run_id, _known_ids(client))}"
    )


def _by_beginning(client: MlflowClient, name: str) -> Run:
    found = []
    if BEGINNING.fullmatch(name.lower()):
        found = runs_beginning(client, name.lower())
    if len(found) == 1:
        return found[0]
    if found:
        which = ", ".join(f"{run.info.run_id[: len(name) + 4]}… ({run.info.run_name})" for run in found[:5])
        raise ValueError(f"{len(found)} runs begin with {name}: {which}; give more of the id")
    sweeps = client.search_runs(experiments(client), f"tags.`{Tag.KIND}` = '{Kind.SWEEP}'", max_results=CANDIDATES)
    names = sorted({run.info.run_name for run in sweeps})
    if name in names:
        raise ValueError(f"{name} is a sweep; say which of its trials: {_example(client, name)}")
    near = did_you_mean(name, names) or did_you_mean(name, _known_ids(client))
    raise ValueError(
        f"RUN_ID must be the id of a run, four or more of its first digits, or SWEEP/NUMBER such as "
        f"{names[0] if names else 'demo'}/0, but got {name!r}, which names no run at "
        f"{redact(client.tracking_uri)}{near}"
    )


def _trained(client: MlflowClient, name: str, run: Run) -> Run:
    kind, outcome = run.data.tags.get(Tag.KIND), run.data.tags.get(Tag.OUTCOME)
    if run.info.lifecycle_stage != "active":
        raise ValueError(
            f"run {run.info.run_id} is deleted; restore it first: mlflow runs restore --run-id {run.info.run_id}"
        )
    if kind == Kind.SWEEP:
        sweep = run.data.tags.get(Tag.SWEEP_NAME, "")
        raise ValueError(
            f"run {name} is a sweep's own, which trained nothing; say which trial: {_example(client, sweep)}"
        )
    if kind not in TRAINED:
        raise ValueError(f"run {name} is no training of this program; its tag {Tag.KIND} is {kind}")
    if outcome == Outcome.IMPOSSIBLE:
        reason = run.data.tags.get(Tag.REASON, "its values cannot go together")
        raise ValueError(f"run {name} never began, so it cannot be repeated: {reason}")
    return run


def _example(client: MlflowClient, sweep: str) -> str:
    found = find_sweep(client, sweep)
    return next((f"{sweep}/{trial.number}" for trial in found.completed or found.trials), "it has none yet")


def _known_ids(client: MlflowClient) -> list[str]:
    runs = client.search_runs(experiments(client), max_results=CANDIDATES, order_by=["attributes.start_time DESC"])
    return [run.info.run_id for run in runs]
