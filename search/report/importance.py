"""Which parameters mattered: main effects of a kernel regression, and whether each can be told from no effect at all.

A parameter is told by the generalized covariance measure (Shah & Peters 2020, "The Hardness of Conditional Independence
Testing", eq. 3): objective and parameter are each predicted from all other parameters and from the order of the trials,
and what is left of the two must still go together. So a sampler that concentrates, and draws good values of several
parameters together, does not make those matter that have no effect. The regression is kernel ridge (Saunders et al.
1998) with a sum of kernels, one for each parameter (Duvenaud et al. 2011, "Additive Gaussian Processes"), and one of
all together; what it predicts of a trial is from the other trials alone. A parameter's share is that of its own term.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh, solve
from scipy.stats import norm, rankdata

MOST_TRIALS = 400
"""More are sampled down to this number."""
FEWEST_TRIALS = 12
LEVEL = 0.02
"""Corrected p below which a parameter is told (Holm 1979): with it any parameter without effect is told in at most 5 %
of sweeps also where a sampler concentrates, which the statistic does not quite make up for."""
FLIPS = 4000
BOOTSTRAPS = 30
TOGETHER = 0.1
"""Weight of the kernel of all parameters together, against 1 for the mean of their own."""
WIDTH = 0.25
"""Width of a parameter's kernel, as a share of the trials, by rank."""
RIDGES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)


@dataclass(frozen=True)
class Column:
    """One parameter of every trial."""

    name: str
    values: np.ndarray
    """[n]: the numbers of a range, or of choices; NaN where a trial does not have it."""
    choice: bool
    """Whether its values have no order."""

    @property
    def there(self) -> np.ndarray:
        return np.asarray(~np.isnan(self.values))

    @property
    def varies(self) -> bool:
        return len(np.unique(self.values[self.there])) > 1


@dataclass(frozen=True)
class Importance:
    """Share of an objective's variation, by rank, that a parameter's main effect has, with a 95 % interval."""

    objective: str
    parameter: str
    share: float
    low: float
    high: float
    told: bool
    """Whether it can be told from a parameter that has no effect."""
    p: float = 1.0
    """Chance of as much without an effect, corrected for looking at every parameter."""
    good: str = ""
    """Which values are good, in a sentence; "" where it is not told."""


def importances(objective: str, columns: Sequence[Column], values: np.ndarray, seed: int = 0) -> list[Importance]:
    """What the parameters that vary do to an objective's `values` [n], in the order of the trials; largest share first.

    The objective counts by its rank, so that a few terrible trials do not decide. A parameter of a branch is judged
    among the trials that have it. Empty with fewer than FEWEST_TRIALS.
    """
    random = np.random.default_rng(seed)
    if len(values) > MOST_TRIALS:
        chosen = np.sort(random.choice(len(values), MOST_TRIALS, replace=False))
        values = values[chosen]
        columns = [Column(each.name, each.values[chosen], each.choice) for each in columns]
    columns = [column for column in columns if column.varies]
    if len(values) < FEWEST_TRIALS or not columns or np.ptp(values) == 0:
        return []
    score = norm.ppf((rankdata(values) - 0.5) / len(values))
    kernels = [_kernel(column) for column in columns]
    order = _kernel(Column("", np.arange(len(score), dtype=float), choice=False))
    others = [[*kernels[:index], *kernels[index + 1 :], order] for index in range(len(columns))]
    chances = holm([_chance(column, rest, score, random) for column, rest in zip(columns, others, strict=True)])
    shares = _shares(columns, np.array(kernels), score, random)
    found = [
        Importance(objective, column.name, *share, p <= LEVEL, p)
        for column, share, p in zip(columns, shares, chances, strict=True)
    ]
    return sorted(found, key=lambda each: -each.share)


def holm(chances: Sequence[float]) -> list[float]:
    """p values corrected for their number, in the order they came (Holm 1979)."""
    order = np.argsort(chances)
    scaled = np.asarray(chances)[order] * np.arange(len(chances), 0, -1)
    corrected = np.empty(len(chances))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return [float(p) for p in corrected]


def _chance(column: Column, others: Sequence[np.ndarray], score: np.ndarray, random: np.random.Generator) -> float:
    """How likely the parameter and the objective go together as much without an effect, given the `others`' kernels."""
    there = column.there
    shape = _shape(column, there)
    if there.sum() < FEWEST_TRIALS or not shape.shape[1] or np.ptp(score[there]) == 0:
        return 1.0
    target = np.column_stack([score[there], shape])
    left = _left_out([kernel[np.ix_(there, there)] for kernel in others], (target - target.mean(0)) / target.std(0))
    products = left[:, :1] * left[:, 1:]
    scale = np.sqrt((products**2).sum(0)) + 1e-12
    signs = random.choice(np.array([-1.0, 1.0]), (FLIPS, len(products)))
    flipped = np.abs(signs @ products / scale).max(1)
    return float((1 + (flipped >= np.abs(products.sum(0) / scale).max()).sum()) / (FLIPS + 1))


def _shape(column: Column, there: np.ndarray) -> np.ndarray:
    """Functions of the parameter [n, functions]: its rank and the rank's distance from the middle, or each choice."""
    values = column.values[there]
    if column.choice:
        options, counts = np.unique(values, return_counts=True)
        functions = np.column_stack([values == option for option in options[np.argsort(-counts)][:8]]).astype(float)
    else:
        rank = (rankdata(values) - 0.5) / len(values) - 0.5
        functions = np.column_stack([rank, rank**2])
    return functions[:, functions.std(0) > 1e-9]


def _kernel(column: Column) -> np.ndarray:
    """How alike trials are in one parameter [n, n], 0 to 1; 0 where either does not have it."""
    there = column.there
    if column.choice:
        alike = (column.values[:, None] == column.values[None]).astype(float)
    else:
        rank = np.where(there, rankdata(column.values, nan_policy="omit") / max(1, there.sum()), 0.0)
        alike = np.exp(-0.5 * ((rank[:, None] - rank[None]) / WIDTH) ** 2)
    return np.where(there[:, None] & there[None], alike, 0.0)


def _joined(kernels: Sequence[np.ndarray]) -> np.ndarray:
    """Mean of the kernels, and TOGETHER of what is alike in all of them at once."""
    together = np.exp(sum(kernel - 1 for kernel in kernels) * WIDTH)
    return np.asarray(sum(kernels) / len(kernels) + TOGETHER * together)


def _left_out(kernels: Sequence[np.ndarray], target: np.ndarray) -> np.ndarray:
    """What is left of each column of `target` [n, outputs] when each row is predicted from the others."""
    levels, vectors = eigh(_joined(kernels))
    levels = np.maximum(levels, 0)
    projected = vectors.T @ target
    tried = []
    for ridge in RIDGES:
        kept = ridge / (levels + ridge)
        tried.append(vectors @ (kept[:, None] * projected) / (vectors**2 @ kept)[:, None])
    best = np.argmin([(left**2).mean(0) for left in tried], axis=0)
    return np.column_stack([tried[choice][:, output] for output, choice in enumerate(best)])


def _shares(
    columns: Sequence[Column], kernels: np.ndarray, score: np.ndarray, random: np.random.Generator
) -> list[tuple[float, float, float]]:
    """(share, low, high) of the objective's variation that each parameter's own term has, with a 95 % interval."""
    everything = np.arange(len(score))
    ridge = _ridge(kernels, score)
    share = _terms(columns, kernels, score, ridge, everything)
    drawn = [_terms(columns, kernels, score, ridge, random.choice(everything, len(score))) for _ in range(BOOTSTRAPS)]
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    edges = zip(share, np.minimum(low, share), np.maximum(high, share), strict=True)
    return [(float(middle), float(below), float(above)) for middle, below, above in edges]


def _ridge(kernels: np.ndarray, score: np.ndarray) -> float:
    """The ridge with which trials are predicted best from the others."""
    levels, vectors = eigh(_joined(list(kernels)))
    projected = vectors.T @ (score - score.mean())
    errors = []
    for ridge in RIDGES:
        kept = ridge / (np.maximum(levels, 0) + ridge)
        errors.append(float(((vectors @ (kept * projected) / (vectors**2 @ kept)) ** 2).mean()))
    return RIDGES[int(np.argmin(errors))]


def _terms(
    columns: Sequence[Column], kernels: np.ndarray, score: np.ndarray, ridge: float, rows: np.ndarray
) -> np.ndarray:
    """Share of each parameter's own term, fitted to these rows [columns]."""
    grid = np.ix_(rows, rows)
    own = [kernel[grid] for kernel in kernels]
    weights = solve(_joined(own) + ridge * np.eye(len(rows)), score[rows] - score[rows].mean(), assume_a="pos")
    shares = np.zeros(len(columns))
    for index, column in enumerate(columns):
        there = column.there[rows]
        total = score[rows][there].var() if there.any() else 0.0
        if total > 0:
            shares[index] = (own[index] @ weights / len(columns))[there].var() / total
    return np.clip(shares, 0, 1)
