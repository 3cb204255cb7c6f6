"""Who is best: the one rule for journals and for MLflow alike, over plain records."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import stats

from search.standings.pareto import fronts
from search.standings.scales import Scales, ranking

CONFIDENCE = 0.95
FIRST_FRESH_SEED = 1_000_000
"""The first replicate of a trial has this seed, plus that of the sweep's base."""


@dataclass(frozen=True)
class Candidate:
    """A trial of full fidelity, as far as it matters to who is best."""

    number: int
    metrics: Mapping[str, float]
    """Validation metrics of its last evaluation."""
    confirmed: Mapping[str, float] = field(default_factory=dict)
    """Means of the objectives over fresh seeds; empty without a confirmation."""
    feasible: bool = True
    """Whether it violates no constraint, in the mean over fresh seeds where there are some."""
    lost: bool = False
    """Whether a fresh seed diverged or failed: the mean of the others would favor what is unstable."""


@dataclass(frozen=True)
class Confirmation:
    """A trial's objectives over its replicates, which have other seeds: its own was chosen because it did well."""

    completed: int
    """Replicates that reached full fidelity, of those that have `ended`."""
    ended: int
    mean: Mapping[str, float]
    """Empty where fewer than two completed."""
    half_width: Mapping[str, float]
    """Half-width of the mean's 95 % interval (Student's t)."""

    @classmethod
    def of(cls, completed: Sequence[Mapping[str, float]], ended: int, objectives: Sequence[str]) -> Confirmation:
        """What `ended` replicates of one trial say, by the metrics of those that completed; a mean needs two."""
        if len(completed) < 2:
            return cls(len(completed), ended, {}, {})
        values = {name: [metrics[name] for metrics in completed] for name in objectives}
        return cls(
            completed=len(completed),
            ended=ended,
            mean={name: statistics.fmean(sample) for name, sample in values.items()},
            half_width={name: half_width(sample) for name, sample in values.items()},
        )

    @property
    def seeds(self) -> str:
        return f"{self.completed} of {self.ended} seeds"

    @property
    def lost(self) -> bool:
        """Whether a fresh seed diverged or failed."""
        return self.completed < self.ended

    def in_words(self) -> str:
        if not self.mean:
            return f"only {self.seeds} completed"
        values = ", ".join(f"{name} {mean:.4g} ± {self.half_width[name]:.2g}" for name, mean in self.mean.items())
        return f"{values} ({self.seeds})"


def half_width(values: Sequence[float]) -> float:
    """Half-width of the 95 % interval of the mean of two or more values (Student's t)."""
    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)
    return float(quantile) * statistics.stdev(values) / math.sqrt(len(values))


def best_first(candidates: Sequence[Candidate], objectives: Sequence[str], scales: Scales) -> list[int]:
    """Numbers of the candidates, best first: feasible ones before the others, those that lost no fresh seed before
    those that did, confirmed ones before the others, and then by `ranking`, of the confirmed means where there are
    any."""
    groups: dict[tuple[bool, bool, bool], list[Candidate]] = {}
    for candidate in candidates:
        key = not candidate.feasible, candidate.lost, not candidate.confirmed
        groups.setdefault(key, []).append(candidate)
    ordered: list[int] = []
    for _, group in sorted(groups.items()):
        metrics = [{**candidate.metrics, **candidate.confirmed} for candidate in group]
        ordered += [group[index].number for index in ranking(metrics, objectives, scales)]
    return ordered


def on_front(candidates: Sequence[Candidate], objectives: Sequence[str]) -> set[int]:
    """Numbers of the feasible candidates that no other feasible one beats on every objective."""
    feasible = [candidate for candidate in candidates if candidate.feasible]
    if not feasible:
        return set()
    levels = fronts(np.array([[candidate.metrics[name] for name in objectives] for candidate in feasible]))
    return {candidate.number for candidate, level in zip(feasible, levels, strict=True) if level == 0}
