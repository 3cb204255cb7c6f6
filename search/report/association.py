"""What the sampler's trials say about a question: association only, since the sampler chose what else each of them has.
For the same reason an interval would be wrong, so none is given."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from typing import Any

from search.config.sweep import Sweep, flat
from search.questions.blocks import Asked
from search.questions.sentences import signed
from search.tracking.reader import SweepRun, TrialRun
from search.tracking.runs import text_of, value_of

FEW = 5
"""Trials of a level below which nothing is said."""


def associations(
    asked: Asked,
    factor: Mapping[str, list[Any]],
    sweep: SweepRun,
    plan: Sweep | None,
    outcome: Callable[[TrialRun], float],
) -> tuple[str, ...]:
    """For each level but the reference, how the outcomes of completed trials with it compare, in a sentence; "" where
    too few have it. `factor` is the value of each setting at each level."""
    base = {name: text_of(value) for name, value in flat(plan.config.base)} if plan else {}
    levels = list(zip(*([value_of(text_of(value)) for value in values] for values in factor.values()), strict=True))
    outcomes: dict[int, list[float]] = {}
    for trial in sweep.completed:
        value, given = outcome(trial), base | dict(trial.params)
        has = tuple(value_of(given[name]) for name in factor if name in given)
        if has in levels and math.isfinite(value) and (asked.scale == "difference" or value > 0):
            outcomes.setdefault(levels.index(has), []).append(math.log(value) if asked.scale == "ratio" else value)
    return tuple(_sentence(asked, level, outcomes) for level in range(1, len(asked.levels)))


def _sentence(asked: Asked, level: int, outcomes: Mapping[int, list[float]]) -> str:
    reference, mine = outcomes.get(0, []), outcomes.get(level, [])
    if asked.across or min(len(reference), len(mine)) < FEW:
        return ""
    change = statistics.fmean(mine) - statistics.fmean(reference)
    effect = signed(asked, math.exp(change) if asked.scale == "ratio" else change)
    return (
        f"Among the sampler's trials {asked.levels[level]} goes with {effect} of {asked.outcome} ({len(mine)} against "
        f"{len(reference)} completed trials): association only, since the sampler chose what else they have."
    )
