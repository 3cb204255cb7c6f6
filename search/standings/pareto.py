"""Non-dominated fronts, crowding and hypervolume of points whose objectives are minimized. Pure functions."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

import numpy as np


def fronts(values: np.ndarray) -> np.ndarray:
    """Front of each row of `values` [n, objectives], 0 the non-dominated one (Deb et al. 2002, sec. III-A).

    Memory grows with n. Time: n log n for one or two objectives; for more, each point is compared with about the
    logarithm of the number of fronts (Zhang et al. 2015, "An Efficient Approach to Nondominated Sorting").
    """
    distinct, index = np.unique(values, axis=0, return_inverse=True)  # lexicographic: none dominates an earlier one
    levels = _levels_of_pairs(distinct) if values.shape[1] == 2 else _levels(distinct)
    return np.array(levels, int)[index.reshape(-1)]


def _levels_of_pairs(distinct: np.ndarray) -> list[int]:
    """The same for distinct (x, y) in lexicographic order: a front dominates a point if its least y is at most y."""
    least: list[float] = []
    levels = []
    for y in distinct[:, 1].tolist():
        level = bisect_right(least, y)
        least[level : level + 1] = [y]
        levels.append(level)
    return levels


def _levels(distinct: np.ndarray) -> list[int]:
    if distinct.shape[1] == 1:
        return list(range(len(distinct)))
    members: list[np.ndarray] = []
    levels = []
    for point in distinct:
        low, high = 0, len(members)
        while low < high:
            middle = (low + high) // 2
            if (members[middle] <= point).all(1).any():
                low = middle + 1
            else:
                high = middle
        if low == len(members):
            members.append(point[None])
        else:
            members[low] = np.concatenate([members[low], point[None]])
        levels.append(low)
    return levels


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
    """Place of each row: 1 + the number of rows on a better front, or on the same front and less crowded."""
    front = fronts(values)
    place = np.ones(len(values), int)
    better = 0
    for level in range(front.max(initial=-1) + 1):
        members = np.flatnonzero(front == level)
        crowding = crowding_distance(values[members]) if values.shape[1] > 1 else np.zeros(len(members))
        place[members] += better + np.searchsorted(np.sort(-crowding), -crowding)
        better += len(members)
    return place


def hypervolume(points: Sequence[tuple[float, float]]) -> float:
    """Share of the unit square that (s1, s2) points dominate, 0 to 1; more is better (Zitzler & Thiele 1999)."""
    area, height = 0.0, 1.0
    for s1, s2 in sorted(points):
        if s1 < 1.0 and s2 < height:
            area += (1.0 - s1) * (height - s2)
            height = s2
    return area
