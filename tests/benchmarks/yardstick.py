"""What a replay's results are measured with: scores without noise, their scale, and what random search would reach."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from methods import random_point
from recording import OBJECTIVES
from surrogate import Surrogate

from search.standings.pareto import fronts, hypervolume
from search.standings.scales import ranking

POOL = 20_000
"""Random configurations that stand for the space: for random search's target, the reference, and the best possible."""
TARGET_DRAWS = 2000


@dataclass
class Yardstick:
    """What the numbers of one truth are measured with."""

    surrogate: Surrogate
    reference: np.ndarray
    """(s1, s2) of the median of random configurations, without noise."""
    best: np.ndarray
    """The least s1 and the least s2 of any of them."""
    best_g: float
    """The least sqrt(s1 s2) of those with s1 <= 0.5."""
    pool: tuple[np.ndarray, list[dict[str, float]]]
    """Expected curves and true metrics of random configurations."""

    @classmethod
    def of(cls, surrogate: Surrogate) -> Yardstick:
        rng = np.random.default_rng(1)
        params = [random_point(surrogate.sweep.space, rng) for _ in range(POOL)]
        means = surrogate.means(params)
        kept = rng.random(POOL) >= surrogate.chances_of_divergence(params)
        metrics = [dict(zip(OBJECTIVES, map(float, np.exp(mean[-1])), strict=True)) for mean in means]
        scores = np.array([surrogate.scales.scores(each) for each in metrics])
        acceptable = scores[scores[:, 0] <= 0.5]
        best_g = float(np.sqrt(acceptable.prod(1)).min()) if len(acceptable) else math.nan
        pool = means[kept], [each for each, good in zip(metrics, kept, strict=True) if good]
        return cls(surrogate, np.median(scores, 0), scores.min(0), best_g, pool)

    def g(self, metrics: dict[str, float]) -> float:
        s1, s2 = self.surrogate.scales.scores(metrics)
        return math.sqrt(s1 * s2)

    def log_score(self, metrics: dict[str, float]) -> tuple[float, float]:
        """Each score between the best possible (0) and the reference (1), on a log scale."""
        scores = np.array(self.surrogate.scales.scores(metrics))
        share = np.log(scores / self.best) / np.log(self.reference / self.best)
        return float(share[0]), float(share[1])

    def quality(self, observed: Sequence[dict[str, float]], true: Sequence[dict[str, float]]) -> tuple[float, float]:
        """(sqrt(s1 s2) of the recommended trial, log hypervolume of the observed front), both without noise."""
        if not observed:
            return math.inf, 0.0
        first = ranking(observed, OBJECTIVES, self.surrogate.scales)[0]
        front = fronts(np.array([[each[name] for name in OBJECTIVES] for each in observed])) == 0
        return self.g(true[first]), hypervolume(
            [self.log_score(true[index]) for index in np.flatnonzero(front).tolist()]
        )

    def random_quality(self, trainings: int) -> np.ndarray:
        """Quality [draw, measure] of random search after this many full trainings: no replay is needed for it."""
        rng, (means, true) = np.random.default_rng(2), self.pool
        finals, residuals = means[:, -1], self.surrogate.residuals[:, -1]
        nearest = self.surrogate.nearest(finals)
        found = []
        for _ in range(TARGET_DRAWS):
            chosen = rng.integers(len(means), size=trainings)
            noise = residuals[nearest[chosen, rng.integers(nearest.shape[1], size=trainings)]]
            values = np.exp(finals[chosen] + noise).tolist()
            observed = [dict(zip(OBJECTIVES, each, strict=True)) for each in values]
            found.append(self.quality(observed, [true[index] for index in chosen]))
        return np.array(found)
