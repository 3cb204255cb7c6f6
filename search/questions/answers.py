"""Answers to questions: effects with intervals that stay valid under looking, and what may be said of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from search.questions.blocks import Asked, BlockRun
from search.questions.contrasts import Contrasts, contrasts_of
from search.questions.divergence import Divergences, divergences_of
from search.questions.intervals import Interval, mean_interval, mean_p, tuned_interval, typical_interval
from search.questions.looks import BATCH, LEVEL, level_at, looks_until, sequential_p
from search.questions.power import more_blocks

FEWEST_DRAWS = 3
"""Draws of the nuisances whose best is expected, unless there are many blocks."""


class Verdict(StrEnum):
    """What may be said of a question."""

    DIFFERENCE = "difference"
    NO_PRACTICAL_EFFECT = "no practical effect"
    DIVERGENCE = "diverges more often"
    """One of the levels, and what is left of the outcome has no practical effect, or cannot be compared."""
    NOT_ENOUGH = "not enough evidence"

    @property
    def clear(self) -> bool:
        return self is not Verdict.NOT_ENOUGH


@dataclass(frozen=True)
class Effect:
    """What a level does to the outcome against the reference, with an interval that holds at all looks together."""

    estimate: float
    """A ratio, or a difference where the question's scale is that."""
    low: float
    high: float
    blocks: int
    """Blocks that tell."""


@dataclass(frozen=True)
class Answer:
    """What the blocks say of one level of a question against its reference."""

    asked: Asked
    level: int
    ended: int
    """Blocks that have ended."""
    look: int
    """Blocks at the last look, which the answer is from; 0 before the first."""
    next_look: int
    verdict: Verdict
    average: Effect | None
    """Over nuisances from their prior: mean with a t interval. None before the first look, or if no blocks tell."""
    typical: Effect | None
    """The same by Hodges and Lehmann."""
    tuned: Effect | None
    """The effect on the expected best of `draws` draws of the nuisances, for each level separately; diverged trials are
    the worst. None where neither less nor more of the outcome is better, or the blocks are too few."""
    draws: int
    p: float
    """Smallest level at which the average's interval excludes no effect."""
    holm: float
    """The same, over all questions together (Holm 1979)."""
    spread: float | None
    """Standard deviation of a block's contrast (of logs)."""
    divergences: Divergences
    divergence_holm: float
    """McNemar's p, for all looks and over all questions together."""
    worst_holm: float
    """The same of outcomes with to diverge as the worst; 1 where that is not asked."""
    more: int | None
    """Blocks that would tell with probability 0.8; None where they tell now, or not even many would."""


def answers(
    asked: Sequence[Asked], runs: Sequence[BlockRun], *, looks: Sequence[int], over: bool = False
) -> list[Answer]:
    """An answer for each level but the reference of each question.

    `runs` are those of blocks in which every trial has ended; `looks` the numbers of blocks after which one looks
    (`planned_looks`), as registered. Only blocks that a look has are used, so that looking in between changes nothing;
    where the sweep is `over`, its end is a look.
    """
    found = [answer for question in asked for answer in _answers(question, runs, looks, over, _tests(asked))]
    ps = np.array([(answer.p, answer.divergence_holm, answer.worst_holm) for answer in found]).reshape(-1, 3).T
    return [
        _decided(replace(answer, holm=p, divergence_holm=divergence, worst_holm=worst))
        for answer, (p, divergence, worst) in zip(found, holm(ps).T.tolist(), strict=True)
    ]


def verdicts_of(found: Sequence[Answer]) -> dict[str, Verdict]:
    """One verdict by question: not enough evidence while any of its levels has not enough, and no practical effect if
    none of them has one."""
    order = (Verdict.NOT_ENOUGH, Verdict.DIFFERENCE, Verdict.DIVERGENCE, Verdict.NO_PRACTICAL_EFFECT)
    of: dict[str, list[Verdict]] = {}
    for answer in found:
        of.setdefault(answer.asked.name, []).append(answer.verdict)
    return {name: min(verdicts, key=order.index) for name, verdicts in of.items()}


def holm(ps: np.ndarray) -> np.ndarray:
    """Adjusted p values along the last axis: all claims with one at most 0.05 are wrong together in at most 5 % of
    cases (Holm 1979)."""
    order = np.argsort(ps, axis=-1, kind="stable")
    stepped = np.take_along_axis(ps, order, -1) * np.arange(ps.shape[-1], 0, -1)
    adjusted = np.empty(ps.shape)
    np.put_along_axis(adjusted, order, np.minimum(1, np.maximum.accumulate(stepped, axis=-1)), -1)
    return adjusted


def draws_of(blocks: int) -> int:
    """How many draws the tuned estimand is the expected best of: an eighth of the blocks, at least 3."""
    return max(FEWEST_DRAWS, blocks // BATCH)


def _tests(asked: Sequence[Asked]) -> int:
    return sum(len(question.levels) - 1 for question in asked)


def _answers(asked: Asked, runs: Sequence[BlockRun], looks: Sequence[int], over: bool, tests: int) -> list[Answer]:
    """Before Holm's adjustment."""
    blocks = sorted({run.block for run in runs if asked.name in run.levels})
    ended = len(blocks)
    passed = looks_until(looks, ended)
    if over and ended not in passed and ended >= 2:
        passed = (*passed, ended)
    look = passed[-1] if passed else 0
    upcoming = next((each for each in looks if each > ended), max(looks[-1], ended // BATCH * BATCH) + BATCH)
    looked_at = {*blocks[:look]}
    used = contrasts_of(asked, [run for run in runs if run.block in looked_at])
    found = []
    for level in range(1, len(asked.levels)):
        divergences = divergences_of(used, level, asked.worse)
        blank = Answer(
            asked=asked,
            level=level,
            ended=ended,
            look=look,
            next_look=upcoming,
            verdict=Verdict.NOT_ENOUGH,
            average=None,
            typical=None,
            tuned=None,
            draws=draws_of(look),
            p=1.0,
            holm=1.0,
            spread=None,
            divergences=divergences,
            divergence_holm=_sequential(divergences.p, passed, looks) if passed else 1.0,
            worst_holm=_sequential(divergences.worst_p or 1.0, passed, looks) if passed else 1.0,
            more=None,
        )
        found.append(_estimated(blank, used, passed, looks, tests) if passed else blank)
    return found


def _estimated(answer: Answer, used: Contrasts, passed: tuple[int, ...], looks: Sequence[int], tests: int) -> Answer:
    """The answer with its effects."""
    asked, most = answer.asked, looks[-1]
    effects = used.effects[:, answer.level - 1]
    told = effects[~np.isnan(effects)]
    level = level_at(passed, most)
    tuned = _tuned(answer, used, level)
    if len(told) < 2:
        return replace(answer, tuned=tuned)
    average = mean_interval(told, level)
    smallest = math.log(asked.smallest_effect) if asked.scale == "ratio" else asked.smallest_effect
    return replace(
        answer,
        average=_effect(asked, average, len(told)),
        typical=_effect(asked, typical_interval(told, level), len(told)),
        tuned=tuned,
        p=_sequential(float(mean_p(told)), passed, looks),
        spread=float(told.std(ddof=1)),
        more=more_blocks(told, answer.look, smallest, looks=looks, tests=tests),
    )


def _sequential(p: float, passed: Sequence[int], looks: Sequence[int]) -> float:
    return float(sequential_p(np.array(p), passed, looks[-1]))


def _tuned(answer: Answer, used: Contrasts, level: float) -> Effect | None:
    losses = used.losses[:, [0, answer.level]]
    losses = losses[~np.isnan(losses).any(axis=1)]
    if len(losses) < BATCH:
        return None
    interval = tuned_interval(losses[:, 0], losses[:, 1], answer.draws, level)
    return _effect(answer.asked, interval if answer.asked.worse > 0 else _negated(interval), len(losses))


def _negated(interval: Interval) -> Interval:
    return Interval(-interval.estimate, -interval.high, -interval.low)


def _effect(asked: Asked, interval: Interval, blocks: int) -> Effect:
    """The interval in people's units."""
    estimate, low, high = (float(each) for each in interval)
    if asked.scale == "difference":
        return Effect(estimate, low, high, blocks)
    return Effect(_exp(estimate), _exp(low), _exp(high), blocks)


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


def _decided(answer: Answer) -> Answer:
    """The answer with its verdict."""
    asked, average = answer.asked, answer.average
    diverges = answer.divergence_holm <= LEVEL
    if average is None:
        return replace(answer, verdict=Verdict.DIVERGENCE) if diverges else answer
    ratio = asked.scale == "ratio"
    none, largest = (1.0, asked.smallest_effect) if ratio else (0.0, asked.smallest_effect)
    least = 1 / largest if ratio else -largest
    if least < average.low and average.high < largest:
        verdict = Verdict.DIVERGENCE if diverges else Verdict.NO_PRACTICAL_EFFECT
    elif answer.holm <= LEVEL and not average.low <= none <= average.high:
        verdict = Verdict.DIFFERENCE
    else:
        verdict = Verdict.NOT_ENOUGH
    return replace(answer, verdict=verdict, more=None if verdict.clear else answer.more)
