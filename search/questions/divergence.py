"""Whether a level diverges more often than the reference, and what changes if to diverge is the worst outcome."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from search.questions.contrasts import Contrasts


@dataclass(frozen=True)
class Divergences:
    """Blocks by which of two levels diverged in them, or diverged in more of its trials."""

    neither: int
    reference: int
    level: int
    both: int
    """Equally often."""
    p: float
    """Chance of blocks as one-sided if neither diverges more often: exact McNemar test, two-sided."""
    worst_p: float | None
    """Chance of outcomes as different if the levels do not differ, where to diverge is worse than any: sign-flip test
    on ranks. None where nothing diverged or neither less nor more of the outcome is better."""
    level_is_worse: bool
    """Whether these ranks speak against the level, rather than against the reference."""


def divergences_of(contrasts: Contrasts, level: int, worse: float) -> Divergences:
    """Divergences of a level against the reference; `worse` is 1 where a larger outcome is worse, -1 where a smaller
    one is, 0 where neither."""
    shares = contrasts.diverged / np.maximum(contrasts.ended, 1)
    more = np.sign(shares[:, level] - shares[:, 0])
    any_diverged = (contrasts.diverged[:, [0, level]] > 0).any(axis=1)
    reference, other = int((more < 0).sum()), int((more > 0).sum())
    ranked = np.where(more == 0, contrasts.effects[:, level - 1], np.where(more * worse > 0, np.inf, -np.inf))
    ranked = ranked[~np.isnan(ranked)]
    return Divergences(
        neither=int((~any_diverged).sum()),
        reference=reference,
        level=other,
        both=int((any_diverged & (more == 0)).sum()),
        p=mcnemar_p(reference, other),
        worst_p=signed_rank_p(ranked) if worse and any_diverged.any() else None,
        level_is_worse=bool(worse * (np.sign(ranked) @ stats.rankdata(np.abs(ranked))) > 0),
    )


def mcnemar_p(one: int, other: int) -> float:
    """Two-sided p of the exact McNemar test: that many blocks fell one way, and the other."""
    return float(stats.binomtest(one, one + other).pvalue) if one + other else 1.0


def signed_rank_p(contrasts: np.ndarray) -> float:
    """Two-sided p of the exact sign-flip test on ranks of [B] contrasts, which may be infinite; ties share a rank,
    and contrasts of 0 are left out."""
    nonzero = contrasts[contrasts != 0]
    doubled = np.rint(2 * stats.rankdata(np.abs(nonzero))).astype(int)  # so that shared ranks are whole numbers
    total = int(doubled.sum())
    chances = np.zeros(total + 1)
    chances[0] = 1.0
    for rank in doubled:
        flipped = np.zeros_like(chances)
        flipped[rank:] = chances[: total + 1 - rank]
        chances = (chances + flipped) / 2
    positive = int(doubled[nonzero > 0].sum())
    return float(min(1.0, 2 * chances[: min(positive, total - positive) + 1].sum()))
