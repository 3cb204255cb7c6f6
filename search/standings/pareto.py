"""What finished trials say: fronts, ranks and the one to promote. Pure functions; objectives are minimised."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vaegan_core.evaluation import PIXEL_MSE, SAMPLES_FD

MEAN_COLOR_MSE = "mean_color_mse"
MEAN_COLOR_FD = "mean_color_fd"
FLOOR_FD = "floor"
LARGEST_ACCEPTED_MSE = 0.5
SMALLEST_FD_SCORE = 0.01


def fronts(values: np.ndarray) -> np.ndarray:
    """Front of each row of `values` [n, objectives], 0 the non-dominated one (Deb et al. 2002, sec. III-A)."""
    better = np.logical_and((values[:, None] <= values[None]).all(-1), (values[:, None] < values[None]).any(-1))
    num_better = better.sum(0)
    front = np.full(len(values), -1)
    level = 0
    while (left := front < 0).any():
        members = left & (num_better == 0)
        front[members] = level
        num_better -= better[members].sum(0)
        level += 1
    return front


def crowding_distance(values: np.ndarray) -> np.ndarray:
    """Crowding distance of each row of `values` [n, objectives]; extremes: infinite (Deb et al. 2002, sec. III-B)."""
    count = len(values)
    distance = np.zeros(count)
    for column in values.T:
        order = np.argsort(column, kind="stable")
        distance[order[[0, -1]]] = math.inf
        extent = column[order[-1]] - column[order[0]]
        if count > 2 and extent > 0:
            distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / extent
    return distance


def places(values: np.ndarray) -> np.ndarray:
    """Place of each row: 1 + the number of rows on a better front, or on the same and less crowded."""
    front = fronts(values)
    crowding = np.zeros(len(values))
    for level in np.unique(front):
        members = front == level
        crowding[members] = crowding_distance(values[members]) if values.shape[1] > 1 else 0.0
    ahead = (front[:, None] < front[None]) | ((front[:, None] == front[None]) & (crowding[:, None] > crowding[None]))
    return np.asarray(1 + ahead.sum(0))


@dataclass(frozen=True)
class Scales:
    """What the objectives are measured against: the trivial model that paints each image in its own mean colour, and
    the floor of the distance, real frames against real frames."""

    mean_color_mse: float
    mean_color_fd: float
    floor_fd: float

    @classmethod
    def of(cls, baselines: Mapping[str, float]) -> Scales:
        return cls(baselines[MEAN_COLOR_MSE], baselines[MEAN_COLOR_FD], baselines[FLOOR_FD])

    def scores(self, metrics: Mapping[str, float]) -> tuple[float, float]:
        """(s1, s2): pixel MSE and distance above the floor, each as a share of the mean colour's (MEASURES 2)."""
        s1 = metrics[PIXEL_MSE] / self.mean_color_mse
        s2 = (metrics[SAMPLES_FD] - self.floor_fd) / (self.mean_color_fd - self.floor_fd)
        return s1, max(SMALLEST_FD_SCORE, s2)


def ranking(metrics: Sequence[Mapping[str, float]], objectives: Sequence[str], scales: Scales) -> list[int]:
    """Indices of full-fidelity trials, the one to call best first.

    One objective: by its value. Pixel MSE and samples FD: the front first, those with s1 <= 0.5 before the others, then
    by sqrt(s1 s2). Other sets of objectives: the front first, then by the sum of the places on each.
    """
    if not metrics:
        return []
    values = np.array([[trial[name] for name in objectives] for trial in metrics])
    if len(objectives) == 1:
        return [int(index) for index in np.argsort(values[:, 0], kind="stable")]
    front = fronts(values)
    if set(objectives) != {PIXEL_MSE, SAMPLES_FD}:
        sums = (values[:, None] > values[None]).sum((1, 2))
        return sorted(range(len(metrics)), key=lambda i: (front[i] > 0, sums[i]))
    scores = [scales.scores(trial) for trial in metrics]
    return sorted(
        range(len(metrics)),
        key=lambda i: (front[i] > 0, scores[i][0] > LARGEST_ACCEPTED_MSE, math.sqrt(scores[i][0] * scores[i][1])),
    )


def hypervolume(points: Sequence[tuple[float, float]]) -> float:
    """Share of the unit square that (s1, s2) points dominate; the larger the better (Zitzler & Thiele 1999)."""
    area, height = 0.0, 1.0
    for s1, s2 in sorted(points):
        if s1 < 1.0 and s2 < height:
            area += (1.0 - s1) * (height - s2)
            height = s2
    return area
