"""What finished trials say: fronts, ranks and the one to promote. Pure functions; objectives are minimised."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


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


def hypervolume(points: Sequence[tuple[float, float]]) -> float:
    """Share of the unit square that (s1, s2) points dominate; the larger the better (Zitzler & Thiele 1999)."""
    area, height = 0.0, 1.0
    for s1, s2 in sorted(points):
        if s1 < 1.0 and s2 < height:
            area += (1.0 - s1) * (height - s2)
            height = s2
    return area
