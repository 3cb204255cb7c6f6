"""The statistics behind a report's health checks. Pure functions; each was tried on data without any effect."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.05
"""Chance that a check warns where there is nothing."""
BOUND_LEVEL = 0.02
"""The same for bounds, smaller because a sampler that concentrates makes it about twice as large."""
OUTER = 0.1
"""Share of a range that counts as its bound, at either end."""
SHUFFLES = 1000
MOST_TRIALS = 2000
"""More are sampled down to this number where labels are shuffled."""


@dataclass(frozen=True)
class Bound:
    """Best trials that lie at an end of a range."""

    parameter: int
    """Index among the parameters."""
    upper: bool
    near: int
    of: int
    p: float
    """Chance of as much if good values lay anywhere, corrected for looking at both ends of every range."""


def at_bound(ranked: Sequence[np.ndarray], num_best: int, shares: Sequence[float]) -> list[Bound]:
    """Ends of ranges at which significantly many of the best trials lie, the clearest first.

    `ranked` are places in each parameter's range, 0 to 1, best trial first, NaN where a trial does not have it; the
    first `num_best` are the best. `shares` is how much of each range its outer tenth is: more where it has few values.

    Two things must be unlikely without an effect. That as many of the best are in the outer tenth, if they may be
    anywhere (binomial); this alone would be fooled by a sampler that concentrates, half of the time. And that trials
    there are as much better than the others, however many are there (Mann & Whitney 1947).
    """
    found = []
    tried = 2 * len(ranked)
    for index, (places, share) in enumerate(zip(ranked, shares, strict=True)):
        there = ~np.isnan(places)
        best = places[:num_best][there[:num_best]]
        for upper in (False, True):
            near = int(_outer(best, upper).sum())
            outer = _outer(places, upper)
            order = np.arange(len(places))
            if not near or (outer | ~there).all():
                continue
            chance = float(stats.binom.sf(near - 1, len(best), share))
            better = stats.mannwhitneyu(order[outer], order[there & ~outer], alternative="less").pvalue
            p = min(1.0, tried * max(chance, float(better)))
            if p <= BOUND_LEVEL:
                found.append(Bound(index, upper, near, len(best), p))
    return sorted(found, key=lambda bound: bound.p)


def _outer(places: np.ndarray, upper: bool) -> np.ndarray:
    return np.asarray(places >= 1 - OUTER - 1e-9 if upper else places <= OUTER + 1e-9)


@dataclass(frozen=True)
class Region:
    """Values of one parameter at which trials end in a certain way."""

    parameter: int
    low: float
    high: float
    """Inclusive; both the same for a choice."""
    inside: tuple[int, int]
    """(trials that end so, trials) there."""
    outside: tuple[int, int]
    p: float
    """Chance of as clear a region anywhere, if there is none: by shuffling which trials end so."""


def region_of(columns: Sequence[np.ndarray], choices: Sequence[bool], ends: np.ndarray, seed: int = 0) -> Region | None:
    """The values of one parameter that set apart the trials that end in a certain way (`ends` [n]), clearest of all.

    `columns` are values [n], NaN where a trial does not have the parameter. None where no trial ends so, or all do, or
    no region can be told from chance.
    """
    random = np.random.default_rng(seed)
    if len(ends) > MOST_TRIALS:
        chosen = np.sort(random.choice(len(ends), MOST_TRIALS, replace=False))
        ends, columns = ends[chosen], [column[chosen] for column in columns]
    count, total = int(ends.sum()), len(ends)
    regions = [region for region in _regions(columns, choices) if 0 < region[3].sum() < total]
    if not 0 < count < total or not regions:
        return None
    members = np.column_stack([region[3] for region in regions]).astype(float)
    sizes = members.sum(0)
    expected = sizes * count / total
    spread = np.sqrt(expected * (1 - count / total) * (1 - sizes / total) * total / max(1, total - 1))
    observed = (ends @ members - expected) / spread
    best = int(observed.argmax())
    shuffled = random.permuted(np.tile(ends.astype(float), (SHUFFLES, 1)), axis=1)
    highest = ((shuffled @ members - expected) / spread).max(1)
    p = float((1 + (highest >= observed[best] - 1e-9).sum()) / (SHUFFLES + 1))
    if p > LEVEL:
        return None
    parameter, low, high, there = regions[best]
    inside, hit = int(there.sum()), int(ends[there].sum())
    return Region(parameter, low, high, (hit, inside), (count - hit, total - inside), p)


def _regions(columns: Sequence[np.ndarray], choices: Sequence[bool]) -> list[tuple[int, float, float, np.ndarray]]:
    """(parameter, low, high, trials there) of every choice, and of the lower and upper parts of every range."""
    regions = []
    for index, (values, choice) in enumerate(zip(columns, choices, strict=True)):
        known = values[~np.isnan(values)]
        if choice:
            regions += [(index, float(v), float(v), values == v) for v in np.unique(known)]
        elif len(known):
            cuts = np.unique(np.quantile(known, np.arange(1, 10) / 10, method="nearest"))
            regions += [(index, -math.inf, float(cut), values <= cut) for cut in cuts]
            regions += [(index, float(cut), math.inf, values >= cut) for cut in cuts]
    return regions


def correlation(one: Sequence[float], other: Sequence[float]) -> tuple[float, float, float]:
    """(Spearman's rank correlation, low, high) with its 95 % interval (Bonett & Wright 2000, eq. 3); NaN for fewer than
    five pairs or where one does not vary."""
    if len(one) < 5 or len(set(one)) < 2 or len(set(other)) < 2:
        return (math.nan,) * 3
    rho = float(stats.spearmanr(one, other).statistic)
    z, error = math.atanh(min(max(rho, -0.999), 0.999)), math.sqrt((1 + rho**2 / 2) / (len(one) - 3))
    return rho, math.tanh(z - 1.96 * error), math.tanh(z + 1.96 * error)


def seeds_against_trials(trials: Sequence[float], replicates: Sequence[Sequence[float]]) -> tuple[float, float] | None:
    """(ratio of standard deviations between trials and between seeds of the same trial, p of a ratio as large without
    any effect), by an F test; None without two replicates of any trial, or with fewer than three trials."""
    groups = [np.asarray(group, float) for group in replicates if len(group) >= 2]
    if not groups or len(trials) < 3:
        return None
    freedom = sum(len(group) - 1 for group in groups)
    within = sum(float(((group - group.mean()) ** 2).sum()) for group in groups) / freedom
    between = float(np.var(trials, ddof=1))
    if within == 0:
        return math.inf, 0.0 if between else 1.0
    return math.sqrt(between / within), float(stats.f.sf(between / within, len(trials) - 1, freedom))


def slower(groups: Sequence[Sequence[float]]) -> float:
    """Chance that groups of speeds differ as much if they do not (Kruskal & Wallis 1952)."""
    if sum(len(set(group)) > 0 for group in groups) < 2 or len({v for group in groups for v in group}) < 2:
        return 1.0
    return float(stats.kruskal(*groups).pvalue)
