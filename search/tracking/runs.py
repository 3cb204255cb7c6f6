"""MLflow runs of every kind: named, tagged, made and found in one way. No journal."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Run, ViewType
from mlflow.exceptions import MlflowException

from search.names import STEP, Kind, Outcome, Prefix, Tag
from search.provenance import DECIDED, source_tags
from search.tracking.errors import MISSING
from search.tracking.images import log_png
from vaegan_core.evaluation import METRICS, Evaluation

POINTS_PER_BLOCK = 1000
"""The most metrics that MLflow takes in one call."""
STATUS: dict[str, str] = {
    Outcome.COMPLETED: "FINISHED",
    Outcome.PRUNED: "FINISHED",
    Outcome.DIVERGED: "FINISHED",
    Outcome.IMPOSSIBLE: "FAILED",
    Outcome.FAILED: "FAILED",
    Outcome.INTERRUPTED: "KILLED",
    Outcome.RUNNING: "FINISHED",
}
"""MLflow's status of an ended run, by outcome. A rerun that ends where its trial was stopped is still "running"."""


@dataclass(frozen=True)
class NewRun:
    """What a run is before MLflow has it."""

    kind: Kind
    name: str
    environment: Mapping[str, str] | None = None
    """Host and device of a training; None for a sweep's own run, which trains nothing."""
    parent: str | None = None
    """Run to show it below."""
    created: float = field(default_factory=time.time)
    """Unix time in seconds."""
    more: Mapping[str, str] = field(default_factory=dict)
    """Tags of its own."""

    @property
    def tags(self) -> dict[str, str]:
        tags: dict[str, str] = {Tag.KIND: self.kind, **source_tags()}
        if self.parent is not None:
            tags["mlflow.parentRunId"] = self.parent
        if self.environment is not None:
            tags |= {
                "mlflow.loggedImages": "True",
                Tag.OUTCOME: Outcome.RUNNING,
                **place_tags(self.environment),
            }
        return tags | dict(self.more)


def place_tags(environment: Mapping[str, str]) -> dict[str, str]:
    """Where a training runs; nothing before it has begun."""
    if not environment:
        return {}
    decided = environment.get(DECIDED, "{}")
    versions: dict[str, str] = {tag: environment[tag] for tag in (Tag.PYTHON, Tag.TORCH) if tag in environment}
    return versions | {Tag.HOST: environment["host"], Tag.DEVICE: environment["device"], Tag.DECIDED: decided}


def create_run(client: MlflowClient, experiment_id: str, new: NewRun) -> str:
    """Makes a run and returns its id. Where the call fails, the server may have made it all the same, or still do."""
    started = int(new.created * 1000)
    run = client.create_run(experiment_id, start_time=started, tags=new.tags, run_name=new.name)
    return str(run.info.run_id)


def is_active(client: MlflowClient, run_id: str) -> bool:
    """Whether a run exists and is not deleted; a deleted one accepts nothing."""
    try:
        return bool(client.get_run(run_id).info.lifecycle_stage == "active")
    except MlflowException as error:
        if error.error_code != MISSING:
            raise
        return False


def mark_running(client: MlflowClient, run_id: str) -> None:
    """Has an ended run count as running again."""
    client.update_run(run_id, status="RUNNING")


def sweep_runs_query(sweep_id: str, kind: Kind, trial: int | None = None) -> str:
    """What `search_all` finds a sweep's runs of a kind by, or those of one trial."""
    query = f"tags.`{Tag.SWEEP_ID}` = '{sweep_id}' and tags.`{Tag.KIND}` = '{kind}'"
    return query if trial is None else f"{query} and tags.`{Tag.TRIAL}` = '{trial}'"


def search_all(client: MlflowClient, experiment_id: str, query: str) -> Iterator[Run]:
    """Every run that a query finds, page by page."""
    token = None
    while True:
        page = client.search_runs([experiment_id], query, ViewType.ACTIVE_ONLY, max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def log_evaluation(client: MlflowClient, run_id: str, evaluation: Evaluation) -> None:
    """Writes the points and image grids of one Evaluation; repeating it changes nothing."""
    metrics = [Metric(p.key, p.value, p.time, p.step) for p in evaluation.points]
    for start in range(0, len(metrics), POINTS_PER_BLOCK):
        client.log_batch(run_id, metrics=metrics[start : start + POINTS_PER_BLOCK])
    now = max((point.time for point in evaluation.points), default=0)
    for key, png in evaluation.images.items():
        log_png(client, run_id, png, key, evaluation.step, now)


def best_so_far(key: str, evaluations: Mapping[int, Mapping[str, float]]) -> dict[int, float]:
    """By step, the best value of a validation metric up to there; empty if neither less nor more of it is better."""
    better = METRICS[key].better if key in METRICS else None
    if better is None:
        return {}
    values = {step: evaluations[step][key] for step in sorted(evaluations) if key in evaluations[step]}
    return dict(zip(values, accumulate(values.values(), min if better == "less" else max), strict=True))


def final_values(
    evaluations: Mapping[int, Mapping[str, float]],
    objectives: Iterable[str],
    step: int,
    now: int,
    times: Mapping[int, int] | None = None,
) -> list[Metric]:
    """`final/step`, and of the last evaluation's validation metrics `final/…`; of each objective also the curve of the
    best so far, `best/…`, which MLflow's pages show first. `now` is Unix time in milliseconds; so are `times`, those of
    the evaluations by step, by which points that are sent again are known to be the same."""
    last = evaluations[max(evaluations)] if evaluations else {}
    final = {STEP: float(step), **last}
    metrics = [Metric(f"{Prefix.FINAL}{key}", value, now, step) for key, value in final.items()]
    best = {key: best_so_far(key, evaluations) for key in objectives}
    at = dict.fromkeys(evaluations, now) | dict(times or {})
    metrics += [Metric(f"{Prefix.BEST}{key}", v, at[s], s) for key, curve in best.items() for s, v in curve.items()]
    return metrics


def diagnosis_tags(diagnoses: Mapping[str, bool | None]) -> dict[str, str]:
    """ "true" or "false" by name of the diagnosis; an undecided one has no tag."""
    return {name: str(holds).lower() for name, holds in diagnoses.items() if holds is not None}


def text_of(value: Any) -> str:
    """A parameter's value as MLflow stores it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def value_of(text: str) -> float | str:
    """The number that MLflow stores as `text`; what is none, as it is."""
    try:
        return float(text)
    except ValueError:
        return text
