"""Non-dominated fronts kept up to date as points come in; objectives are minimized."""

from __future__ import annotations

from bisect import bisect_left, insort

import numpy as np

from search.standings.pareto import crowding_distance


class Ranks:
    """Points and their places: 1 + the number of points on a better front, or on the same front and less crowded.

    The places are those of `pareto.places`, but adding a point costs about the square root of the number of points with
    two objectives (Li et al. 2017, "Efficient Nondomination Level Update"), its logarithm with one.
    """

    def __init__(self) -> None:
        self._sorted: list[float] = []
        self._fronts: list[np.ndarray] = []

    def add(self, point: tuple[float, ...]) -> int:
        """Adds a point and returns its place among all points, itself included."""
        if len(point) == 1:
            insort(self._sorted, point[0])
            return 1 + bisect_left(self._sorted, point[0])
        return self._add(np.array(point))

    def place(self, point: tuple[float, ...]) -> int:
        """Place of a point that was added before."""
        if len(point) == 1:
            return 1 + bisect_left(self._sorted, point[0])
        return self._place(np.array(point), self._level(np.array(point)))

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
        return self._place(point, level)

    def _place(self, point: np.ndarray, level: int) -> int:
        front = self._fronts[level]
        crowding = crowding_distance(front)
        mine = crowding[(front == point).all(1)].max()
        return 1 + sum(len(better) for better in self._fronts[:level]) + int((crowding > mine).sum())

    def _level(self, point: np.ndarray) -> int:
        """The first front without a point that dominates `point`; later fronts have none either."""
        low, high = 0, len(self._fronts)
        while low < high:
            middle = (low + high) // 2
            front = self._fronts[middle]
            if ((front <= point).all(1) & (front < point).any(1)).any():
                low = middle + 1
            else:
                high = middle
        return low
