"""What fresh seeds of a trial differ by: its replicates, and reruns in which only the seed is another."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from mlflow import MlflowClient
from mlflow.entities import Run
from scipy.stats import t as student

from search.names import STEP, Kind, Outcome, Prefix, Tag
from search.tracking.reader import read_curve, seed_of
from search.tracking.runs import search_all

CONFIDENCE = 0.95
ANOTHER_SEED = re.compile(r"train\.seed=\d+")
"""What the tag of a variant holds in which nothing else differs."""


@dataclass(frozen=True)
class Spread:
    """A metric over fresh seeds of one configuration."""

    mean: float
    deviation: float
    """Standard deviation between seeds."""
    seeds: int

    @property
    def half_width(self) -> float:
        """Half-width of the interval that one more seed falls into in 95 % of cases: Student's t prediction interval,
        t s sqrt(1 + 1/n), for normal values (Hahn & Meeker 1991, Statistical Intervals, ch. 4)."""
        quantile = float(student.ppf(0.5 + CONFIDENCE / 2, self.seeds - 1))
        return quantile * self.deviation * math.sqrt(1 + 1 / self.seeds)

    def beyond(self, value: float) -> bool:
        """Whether a value lies outside of what one more seed would give. The trial's own value has no part in it: it
        may have been chosen because it was lucky."""
        return abs(value - self.mean) > self.half_width


def spread(values: Sequence[float]) -> Spread | None:
    """None for fewer than two values, which do not tell how far seeds differ."""
    return Spread(mean(values), stdev(values), len(values)) if len(values) > 1 else None


@dataclass(frozen=True)
class FreshSeeds:
    """Fresh seeds of a trial that came as far as it did."""

    values: Mapping[str, tuple[float, ...]]
    """Validation metrics at that step, a value per seed."""
    seeds: int
    diverged: int
    """Seeds that diverged instead."""

    def of(self, key: str) -> Spread | None:
        return spread(self.values.get(key, ()))


def read_seeds(client: MlflowClient, run: Run, keys: Sequence[str], step: int, but_not: str = "") -> FreshSeeds:
    """Fresh seeds of the trial in `run`, or of the trial that it confirms, at `step`; leaves out the run `but_not`."""
    own, tags = run.info.run_id, run.data.tags
    trial = tags.get("mlflow.parentRunId", own) if tags.get(Tag.KIND) == Kind.REPLICATE else own
    below = search_all(client, run.info.experiment_id, f"tags.`mlflow.parentRunId` = '{trial}'")
    at_step: dict[int | str, dict[str, float]] = {}
    diverged: set[int | str] = set()
    for each in below:
        if each.info.run_id in (own, but_not) or not _is_fresh_seed(each):
            continue
        seed = _seed(client, each)
        if values := _values_at(client, each, keys, step):
            at_step[seed] = values
        if each.data.tags.get(Tag.OUTCOME) == Outcome.DIVERGED:
            diverged.add(seed)
    return FreshSeeds(
        values={key: tuple(values[key] for values in at_step.values() if key in values) for key in keys},
        seeds=len(at_step),
        diverged=len(diverged),
    )


def _is_fresh_seed(run: Run) -> bool:
    kind, variant = run.data.tags.get(Tag.KIND), run.data.tags.get(Tag.VARIANT, "")
    return kind == Kind.REPLICATE or (kind == Kind.RERUN and ANOTHER_SEED.fullmatch(variant) is not None)


def _seed(client: MlflowClient, run: Run) -> int | str:
    """Equal for runs of the same seed, which count once, whoever trained them; one that does not say is its own."""
    try:
        return seed_of(client, run)
    except ValueError:
        return str(run.info.run_id)


def _values_at(client: MlflowClient, run: Run, keys: Sequence[str], step: int) -> dict[str, float]:
    """Metrics of a run at a step; empty where it was not validated there."""
    metrics = run.data.metrics
    if metrics.get(f"{Prefix.FINAL}{STEP}") == step:
        return {key: metrics[f"{Prefix.FINAL}{key}"] for key in keys if f"{Prefix.FINAL}{key}" in metrics}
    known = (key for key in keys if key in metrics)
    curves = {key: read_curve(client, run.info.run_id, key) for key in known}
    return {key: point.value for key, points in curves.items() for point in points if point.step == step}
