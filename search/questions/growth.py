"""How a metric grows over a trial."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def growth(points: Iterable[tuple[int, float]]) -> float:
    """Slope of the logarithm of the values on that of the steps, by least squares, from half of the last step on.

    `points` are (step, value). NaN for fewer than two of them there, or a value that has no logarithm.
    """
    found = sorted(points)
    late = [(step, value) for step, value in found if step > 0 and step >= found[-1][0] / 2]
    if len(late) < 2 or not all(value > 0 for _, value in late):
        return float("nan")
    steps, values = np.log(np.array(late, float)).T
    return float(np.polyfit(steps, values, 1)[0])
