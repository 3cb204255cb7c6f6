"""Scores against trivial models, and the ranking by them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from search.standings.pareto import fronts, hypervolume
from vaegan_core.evaluation import PIXEL_MSE, SAMPLES_FD

MEAN_COLOR_MSE = "mean_color_mse"
MEAN_COLOR_FD = "mean_color_fd"
FLOOR_FD = "floor"
LARGEST_ACCEPTED_MSE = 0.5
SMALLEST_FD_SCORE = 0.01


@dataclass(frozen=True)
class Scales:
    """What the objectives are measured against: the trivial model that paints each image in its own mean color, and
    the floor of the distance, real frames against real frames."""

    mean_color_mse: float
    mean_color_fd: float
    floor_fd: float

    @classmethod
    def of(cls, baselines: Mapping[str, float]) -> Scales:
        return cls(baselines[MEAN_COLOR_MSE], baselines[MEAN_COLOR_FD], baselines[FLOOR_FD])

    def scores(self, metrics: Mapping[str, float]) -> tuple[float, float]:
        """(s1, s2): pixel MSE and Fréchet distance above the floor, each as a share of the mean color's."""
        s1 = metrics[PIXEL_MSE] / self.mean_color_mse
        s2 = (metrics[SAMPLES_FD] - self.floor_fd) / (self.mean_color_fd - self.floor_fd)
        return s1, max(SMALLEST_FD_SCORE, s2)

    def hypervolume(self, metrics: Iterable[Mapping[str, float]]) -> float:
        """Area between the trivial model (0) and a perfect one (1) that trials with these metrics dominate."""
        return hypervolume([self.scores(trial) for trial in metrics])


def ranking(metrics: Sequence[Mapping[str, float]], objectives: Sequence[str], scales: Scales) -> list[int]:
    """Indices of full-fidelity trials, best first.

    One objective: by its value. Pixel MSE and samples FD: the front first, trials with s1 <= 0.5 before the others,
    then by sqrt(s1 s2). Other sets of objectives: the front first, then by the sum of the places on each objective.
    """
    if not metrics:
        return []
    values = np.array([[trial[name] for name in objectives] for trial in metrics])
    if len(objectives) == 1:
        return [int(index) for index in np.argsort(values[:, 0], kind="stable")]
    front = fronts(values)
    if set(objectives) != {PIXEL_MSE, SAMPLES_FD}:
        sums = sum(np.searchsorted(np.sort(column), column) for column in values.T)
        return sorted(range(len(metrics)), key=lambda i: (front[i] > 0, sums[i]))
    scores = [scales.scores(trial) for trial in metrics]
    return sorted(
        range(len(metrics)),
        key=lambda i: (front[i] > 0, scores[i][0] > LARGEST_ACCEPTED_MSE, math.sqrt(scores[i][0] * scores[i][1])),
    )
