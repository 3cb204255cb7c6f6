"""Looking again and again without fooling oneself: levels of group-sequential tests by alpha spending."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import optimize, special

LEVEL = 0.05
"""Chance of claiming any difference where there is none, over all looks and questions."""
BATCH = 8
"""Blocks between two looks."""
PLANNED = 0.9
"""Share of the level that the registered looks spend; the rest is for looks after a sweep was extended."""
EXPONENT = 1.5
"""Spending grows with this power of the blocks: early looks see large effects alone, and the last costs little."""
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)
_LEVELS = np.geomspace(1e-7, 0.999, 80)


def planned_looks(least: int, most: int) -> tuple[int, ...]:
    """Numbers of blocks after which one looks: `least`, then every 8 more, and `most`. Raises ValueError unless
    2 <= least <= most."""
    if not 2 <= least <= most:
        raise ValueError(f"2 <= least <= most must hold for numbers of blocks, but got {least=}, {most=}")
    return (*range(least, most, BATCH), most)


def looks_until(looks: Sequence[int], blocks: int) -> tuple[int, ...]:
    """The looks that a number of blocks has passed: those planned, then one every 8 blocks."""
    return tuple(look for look in (*looks, *range(looks[-1] + BATCH, blocks + 1, BATCH)) if look <= blocks)


class Plan(NamedTuple):
    """When answers are looked at: first, and last as it was planned."""

    least: int = BATCH
    most: int | None = None
    """None: as many blocks as there will be."""

    def level(self, blocks: int, level: float = LEVEL) -> float:
        """Level of the test at a look after that many blocks, all looks before it being paid for; see `level_at`."""
        if self.most is None:
            return level_at(planned_looks(min(self.least, blocks), blocks), blocks, level)
        path = looks_until(planned_looks(self.least, self.most), blocks)
        return level_at(path if blocks in path else (*path, blocks), self.most, level)


def level_at(looks: Sequence[int], most: int, level: float = LEVEL) -> float:
    """Level of the test at the last of `looks` with which all looks together claim too much with probability `level`.

    What is spent grows with a power of the number of blocks (Kim & DeMets 1987) up to `most`, where it comes to
    `PLANNED` of the level, and then towards the whole. Levels follow by integrating the density of sums that crossed
    no bound (Armitage, McPherson & Rowe 1969; Lan & DeMets 1983). An interval of this level is a repeated confidence
    interval: those of all looks hold together, whatever makes one stop (Jennison & Turnbull 1989).
    """
    return levels(tuple(looks), most, level)[-1]


def sequential_p(p: np.ndarray, looks: Sequence[int], most: int) -> np.ndarray:
    """The smallest levels at which tests with these p at the last look would claim something, looks being paid for;
    at least 1e-7."""
    at_levels = _levels_by_level(tuple(looks), most)
    found = np.interp(np.log(np.maximum(p, 1e-300)), np.log(at_levels), np.log(_LEVELS), right=0)
    return np.asarray(np.exp(found))


def _spent(look: int, most: int) -> float:
    """Share of the level that is spent after `look` blocks."""
    return PLANNED * (look / most) ** EXPONENT if look <= most else PLANNED + (1 - PLANNED) * (look - most) / look


@lru_cache(maxsize=1024)
def _levels_by_level(looks: tuple[int, ...], most: int) -> np.ndarray:
    return np.array([levels(looks, most, level)[-1] for level in _LEVELS])


@lru_cache(maxsize=4096)
def levels(looks: tuple[int, ...], most: int, level: float = LEVEL) -> tuple[float, ...]:
    """Levels of the tests at all looks, see `level_at`: the sum of n blocks' contrasts is a Brownian motion at n."""
    found: list[float] = []
    places, masses, time, before = np.zeros(1), np.ones(1), 0, 0.0
    for look in looks:
        spent, step = level * _spent(look, most), math.sqrt(look - time)
        bound = _bound(places, masses, step, spent - before)
        inside = bound * _NODES
        density = np.exp(-(((inside[:, None] - places) / step) ** 2) / 2) / (step * math.sqrt(2 * math.pi))
        places, masses, time, before = inside, bound * _WEIGHTS * (density @ masses), look, spent
        found.append(float(2 * special.ndtr(-bound / math.sqrt(look))))
    return tuple(found)


def _bound(places: np.ndarray, masses: np.ndarray, step: float, chance: float) -> float:
    """Absolute value that a sum, now at `places` with `masses`, exceeds with this chance after its next step."""

    def excess(bound: float) -> float:
        tails = special.ndtr((places - bound) / step) + special.ndtr((-bound - places) / step)
        return float(masses @ tails) - chance

    return float(optimize.brentq(excess, 0.0, float(np.abs(places).max()) + 12 * step, xtol=1e-10))
