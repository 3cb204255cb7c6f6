"""The curves of two trainings, compared point by point."""

from __future__ import annotations

from dataclasses import dataclass

from mlflow import MlflowClient

from search.names import DERIVED_PREFIXES, UNREPEATABLE_PREFIXES, Prefix
from search.tracking.reader import read_curve
from vaegan_core.evaluation import Evaluation

Curves = dict[tuple[str, int], float]
"""Values by (key, step)."""


@dataclass(frozen=True)
class Difference:
    """The earliest curve point whose values differ; None: one training has no such point."""

    key: str
    step: int
    before: float | None
    now: float | None


@dataclass(frozen=True)
class Rerun:
    """What a rerun gave, compared with the original."""

    run_id: str
    """The rerun's own MLflow run."""
    compared: int
    """Number of curve points of the first training."""
    differing: int
    first: Difference | None
    """None: the trainings are identical."""
    metrics: dict[str, float]
    """The last evaluation's."""
    before: dict[str, float | None]
    """What the original had in their place."""
    outcome: str


def read_points(client: MlflowClient, run_id: str) -> Curves:
    """Every repeatable curve point of a run: what the trainer computed, not what was derived from it."""
    others = (*DERIVED_PREFIXES, *UNREPEATABLE_PREFIXES, Prefix.PARAM)
    keys = [key for key in client.get_run(run_id).data.metrics if not key.startswith(others)]
    return {(key, point.step): point.value for key in keys for point in read_curve(client, run_id, key)}


def compare(own_run: str, before: Curves, now: Curves, last: Evaluation) -> Rerun:
    """What the rerun in `own_run` came to: its curves `now` against those `before`, and its `last` evaluation."""
    differing = [key for key in before.keys() | now.keys() if before.get(key) != now.get(key)]
    first = None
    if differing:
        key, step = min(differing, key=lambda item: (item[1], item[0]))
        first = Difference(key, step, before.get((key, step)), now.get((key, step)))
    then = {key: before.get((key, last.step)) for key in last.metrics}
    return Rerun(own_run, len(before), len(differing), first, last.metrics, then, last.outcome)
