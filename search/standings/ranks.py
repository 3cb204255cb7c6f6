"""Non-dominated fronts that are kept up to date as points come in; objectives are minimised."""

from __future__ import annotations

from bisect import bisect_left, insort

import numpy as np

from search.standings.pareto import crowding_distance


class Ranks:
    """Points and their places: 1 + how many lie on a better front, or on the same one and less crowded.

    The same places as `analysis.places`, but to add a point costs about the square root of their number with two
    objectives (Li et al. 2017, "Efficient Nondomination Level Update"), its logarithm with one.
    """

    def __init__(self) -> None:
        self._sorted: list[float] = []
        self._fronts: list[np.ndarray] = []

    def add(self, point: tuple[float, ...]) -> int:
        """Adds a point and returns its place among all, itself included."""
        if len(point) == 1:
            insort(self._sorted, point[0])
            return 1 + bisect_left(self._sorted, point[0])
        return self._add(np.array(point))

    def __len__(self) -> int:
        return len(self._sorted) + sum(len(front) for front in self._fronts)

    def _add(self, point: np.ndarray) -> int:
        level = self._level(point)
        moving = point[None]
        for index in range(level, len(self._fronts)):
            front = self._fronts[index]
            beaten = np.zeros(len(front), bool)
            for other in moving:
                beaten |= (other <= front).all(1) & (other < front).any(1)
            self._fronts[index] = np.concatenate([front[~beaten], moving])
            moving = front[beaten]
            if not len(moving):
                break
        else:
            self._fronts.append(moving)
        front = self._fronts[level]
        crowding = crowding_distance(front)
        mine = crowding[(front == point).all(1)].max()
        return 1 + sum(len(better) for better in self._fronts[:level]) + int((crowding > mine).sum())

    def _level(self, point: np.ndarray) -> int:
        """The first front none of whose points dominates `point`; fronts after it do not either."""
        low, high = 0, len(self._fronts)
        while low < high:
            middle = (low + high) // 2
            front = self._fronts[middle]
            if ((front <= point).all(1) & (front < point).any(1)).any():
                low = middle + 1
            else:
                high = middle
        return low
