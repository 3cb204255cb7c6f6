"""Which nuisance an effect seems to depend on. Association only: nobody set the nuisance apart from the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

Value = float | str | bool | None


@dataclass(frozen=True)
class Moderator:
    """A nuisance and how closely the effect goes with it."""

    name: str
    p: float
    """Chance of as close an association without any, corrected for looking at all nuisances."""


def strongest(nuisances: Mapping[str, Sequence[Value]], effects: np.ndarray) -> Moderator | None:
    """The nuisance that the [B] effects go with most closely: by rank correlation for numbers (Spearman), by the ranks
    of the groups for choices (Kruskal & Wallis 1952). None where no nuisance varies, or fewer than five blocks tell."""
    told = ~np.isnan(effects)
    ps = {name: p for name, values in nuisances.items() if (p := _p(values, effects, told)) is not None}
    if not ps:
        return None
    name = min(ps, key=lambda each: ps[each])
    return Moderator(name, min(1.0, ps[name] * len(ps)))


def are_numbers(values: Sequence[Value]) -> bool:
    """Whether all values that are there are numbers, and any is."""
    known = [value for value in values if value is not None]
    return bool(known) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in known)


def _p(values: Sequence[Value], effects: np.ndarray, told: np.ndarray) -> float | None:
    kept = [(value, effect) for value, effect, tells in zip(values, effects, told, strict=True) if tells]
    if are_numbers(values):
        pairs = [(value, effect) for value, effect in kept if value is not None]
        if len(pairs) < 5 or min(len(set(column)) for column in zip(*pairs, strict=True)) < 2:
            return None
        return float(stats.spearmanr(*zip(*pairs, strict=True)).pvalue)
    groups: dict[Value, list[float]] = {}
    for value, effect in kept:
        groups.setdefault(value, []).append(effect)
    if len(kept) < 5 or len(groups) < 2 or len({effect for _, effect in kept}) < 2:
        return None
    return float(stats.kruskal(*groups.values()).pvalue)
