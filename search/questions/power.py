"""How many blocks a question takes, and what a number of blocks can see."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy import optimize, special, stats

from search.questions.intervals import mean_interval, mean_p
from search.questions.looks import BATCH, LEVEL, Plan, levels, looks_until

MOST_BLOCKS = 2048
"""More are not thought of when a question is planned, nor `MOST_MORE` more once it has been looked at."""
MOST_MORE = 400
TOLD = 0.8
"""Chance with which blocks that "would tell" do."""
NO_PLAN = Plan()
RUNS, MOST_DRAWN = 4000, 128
"""Questions that are simulated, with normal contrasts, and up to how many blocks: beyond, a formula is as good."""


def blocks_needed(spread: float, effect: float, questions: int, *, power: float = 0.8, plan: Plan = NO_PLAN) -> int:
    """The fewest blocks, in batches of 8, with which a true effect is claimed with probability `power` (0 to 1), if
    one looks after every 8, as planned.

    `spread` is the standard deviation of one block's contrast (of logs), `effect` a ratio (where a question's effect is
    a difference, exp of it), `questions` how many contrasts are tested together: Holm's first step. Raises ValueError
    for an effect that 2,048 blocks cannot see.
    """
    _require(spread, questions, power)
    if not effect > 0 or effect == 1:
        raise ValueError(f"effect must be a ratio other than 1, but got {effect}")
    distance = abs(math.log(effect)) / spread
    low, high = 0, 1
    while _power(distance, high * BATCH, questions, plan) < power:
        low, high = high, 2 * high
        if high * BATCH > MOST_BLOCKS:
            raise ValueError(f"a ratio of {effect} takes more than {MOST_BLOCKS:,} blocks where the spread is {spread}")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _power(distance, middle * BATCH, questions, plan) >= power else (middle, high)
    return high * BATCH


def effect_seen(spread: float, blocks: int, questions: int, *, power: float = 0.8, plan: Plan = NO_PLAN) -> float:
    """The smallest ratio (> 1) that 2 or more blocks claim with probability `power`; otherwise as `blocks_needed`."""
    _require(spread, questions, power)
    if blocks < 2:
        raise ValueError(f"blocks must be at least 2, but got {blocks}")
    distance = optimize.bisect(lambda distance: _power(distance, blocks, questions, plan) - power, 0.0, 1e3, xtol=1e-3)
    return math.exp(float(distance) * spread)


def chance_of_none(spread: float, smallest: float, blocks: int, *, plan: Plan = NO_PLAN) -> float:
    """Chance that a true effect of nothing is called no practical effect at the last look, at `blocks`.

    `smallest` is the smallest effect, a ratio (> 1); `spread` and `blocks` as in `effect_seen`.
    """
    _require(spread, 1, TOLD)
    room = abs(math.log(smallest)) / spread
    if blocks > MOST_DRAWN:
        critical = stats.t.isf(plan.level(blocks) / 2, blocks - 1)
        return max(0.0, float(2 * special.ndtr(room * math.sqrt(blocks) - critical) - 1))
    found = mean_interval(_drawn(blocks), plan.level(blocks))
    return float(((found.low > -room) & (found.high < room)).mean())


def _power(distance: float, blocks: int, questions: int, plan: Plan) -> float:
    """Chance that the last look claims an effect of `distance` standard deviations: a little less than that any look
    does."""
    level = plan.level(blocks, LEVEL / questions)
    if blocks > MOST_DRAWN:
        critical = stats.t.isf(level / 2, blocks - 1)
        return float(stats.nct.sf(critical, blocks - 1, distance * math.sqrt(blocks)))
    return float((mean_p(_drawn(blocks) + distance) <= level).mean())


@lru_cache(maxsize=8)
def _drawn(blocks: int) -> np.ndarray:
    """Contrasts of questions without effect, in standard deviations [RUNS, blocks]."""
    return np.random.default_rng(0).normal(size=(RUNS, blocks))


def _require(spread: float, questions: int, power: float) -> None:
    if not spread > 0:
        raise ValueError(f"spread must be greater than 0, but got {spread}")
    if questions < 1:
        raise ValueError(f"questions must be at least 1, but got {questions}")
    if not 0 < power < 1:
        raise ValueError(f"power must be between 0 and 1, but got {power}")


def more_blocks(contrasts: np.ndarray, blocks: int, smallest: float, *, looks: Sequence[int], tests: int) -> int | None:
    """How many more blocks lead to a verdict, whichever, with probability 0.8; None if not 400 do.

    Of the `blocks` so far some had `contrasts` [2 or more]; `smallest` is the smallest effect on their scale. Averaged
    over where the effect may be, given its estimate (assurance, O'Hagan et al. 2005).
    """
    path = looks_until(looks, blocks + MOST_MORE)
    ahead = np.array([each for each in path if each > blocks])
    told = len(contrasts)
    telling = ahead * (told / blocks)
    estimate, spread = contrasts.mean(), contrasts.std(ddof=1)
    if spread == 0:
        return None
    error = spread / np.sqrt(telling)
    half, together = (
        stats.t.isf(np.array(levels(path, looks[-1], level))[-len(ahead) :] / 2, telling - 1) * error
        for level in (LEVEL, LEVEL / tests)
    )
    moves = spread * np.sqrt(1 / told - 1 / telling)
    room = np.maximum(smallest - half, 0)

    def below(bound: np.ndarray) -> np.ndarray:
        return np.asarray(special.ndtr((bound - estimate) / moves))

    chance = np.where(room >= together, 1, 1 - below(together) + below(-together) + below(room) - below(-room))
    enough = np.flatnonzero(chance >= TOLD)
    return int(ahead[enough[0]]) - blocks if len(enough) else None
