"""Which parameters mattered: a forest's main effects, and whether each can be told from no effect at all.

A parameter is told by the generalized covariance measure (Shah & Peters 2020, "The Hardness of Conditional Independence
Testing", eq. 3): objective and parameter are each predicted from all other parameters and from the order of the trials,
and what is left of the two must still go together. So a sampler that concentrates, and draws good values of several
parameters together, does not make those matter that have no effect. Its share is that of the forest's main effect
(Hutter et al. 2014, "An Efficient Approach for Assessing Hyperparameter Importance", eq. 6), with a bootstrap interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, rankdata
from sklearn.ensemble import ExtraTreesRegressor

MOST_TRIALS = 600
"""More are sampled down to this number."""
FEWEST_TRIALS = 12
LEVEL = 0.02
"""Corrected p below which a parameter is told (Holm 1979): with it any parameter without effect is told in at most 5 %
of sweeps also where a sampler concentrates, which the statistic does not quite make up for."""
FLIPS = 4000
TREES = 60
BOOTSTRAPS = 20
TREES_OF_BOOTSTRAP = 20
VALUES_TRIED, BACKGROUND = 16, 40
"""A main effect is measured at that many values of its parameter, each among the other values of that many trials."""
MISSING = -1.0
"""Stands for the value of a parameter that a trial does not have, because it took another branch."""


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
        columns = [Column(column.name, column.values[chosen], column.choice) for column in columns]
    columns = [column for column in columns if column.varies]
    if len(values) < FEWEST_TRIALS or not columns:
        return []
    score = norm.ppf((rankdata(values) - 0.5) / len(values))
    chances = holm([_chance(index, columns, score, random) for index in range(len(columns))])
    shares = _shares(columns, score, random)
    found = [
        Importance(objective, column.name, *_mean_and_interval(share), p <= LEVEL, p)
        for column, share, p in zip(columns, shares, chances, strict=True)
    ]
    return sorted(found, key=lambda each: -each.share)


def _mean_and_interval(shares: np.ndarray) -> tuple[float, float, float]:
    return float(shares.mean()), float(np.quantile(shares, 0.025)), float(np.quantile(shares, 0.975))


def holm(chances: Sequence[float]) -> list[float]:
    """p values corrected for their number, in the order they came (Holm 1979)."""
    order = np.argsort(chances)
    scaled = np.asarray(chances)[order] * np.arange(len(chances), 0, -1)
    corrected = np.empty(len(chances))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return [float(p) for p in corrected]


def _chance(index: int, columns: Sequence[Column], score: np.ndarray, random: np.random.Generator) -> float:
    """How likely the parameter and the objective go together as much without an effect, given all other parameters."""
    there = columns[index].there
    shape = _shape(columns[index], there)
    if there.sum() < FEWEST_TRIALS or not shape.shape[1]:
        return 1.0
    target = np.column_stack([score[there], shape])
    target = (target - target.mean(0)) / target.std(0)
    others = [np.arange(len(score))[:, None], *(_features(each) for i, each in enumerate(columns) if i != index)]
    left = target - _predicted(np.hstack(others)[there], target, random)
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
        return np.column_stack([values == option for option in options[np.argsort(-counts)][:8]]).astype(float)
    rank = (rankdata(values) - 0.5) / len(values) - 0.5
    functions = np.column_stack([rank, rank**2])
    return functions[:, functions.std(0) > 1e-9]


def _features(column: Column) -> np.ndarray:
    """What a forest reads of a parameter [n, features]: its rank, 0 to 1, or a feature for each choice."""
    if not column.choice:
        return np.where(column.there, rankdata(column.values, nan_policy="omit") / column.there.sum(), MISSING)[:, None]
    return np.column_stack([column.values == option for option in np.unique(column.values[column.there])]).astype(float)


def _predicted(features: np.ndarray, target: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Each row of `target` [n, outputs] as trees that have not seen it predict it."""
    forest = ExtraTreesRegressor(
        TREES, min_samples_leaf=3, bootstrap=True, oob_score=True, random_state=int(random.integers(2**31))
    )
    return np.asarray(forest.fit(features, target).oob_prediction_).reshape(target.shape)


def _shares(columns: Sequence[Column], score: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Share of the objective's variation that each parameter's main effect has [columns, BOOTSTRAPS]."""
    parts = [_features(column) for column in columns]
    ends = np.cumsum([part.shape[1] for part in parts])
    features = np.hstack(parts)
    shares = np.zeros((len(columns), BOOTSTRAPS))
    for repeat in range(BOOTSTRAPS):
        drawn = random.integers(len(score), size=len(score))
        forest = ExtraTreesRegressor(
            TREES_OF_BOOTSTRAP, min_samples_leaf=2, random_state=int(random.integers(2**31))
        ).fit(features[drawn], score[drawn])
        having = [drawn[column.there[drawn]] for column in columns]
        tried = [
            _tried(features, rows if len(rows) else drawn, slice(end - part.shape[1], end), random)
            for rows, end, part in zip(having, ends, parts, strict=True)
        ]
        means = forest.predict(np.vstack(tried)).reshape(len(columns), VALUES_TRIED, BACKGROUND).mean(2)
        shares[:, repeat] = means.var(1) / [score[rows].var() or np.inf if len(rows) else np.inf for rows in having]
    return np.clip(shares, 0, 1)


def _tried(features: np.ndarray, rows: np.ndarray, mine: slice, random: np.random.Generator) -> np.ndarray:
    """Rows of features [VALUES_TRIED * BACKGROUND, features] in which one parameter has values drawn apart from the
    others'."""
    tried = np.tile(features[random.choice(rows, BACKGROUND)], (VALUES_TRIED, 1))
    tried[:, mine] = np.repeat(features[random.choice(rows, VALUES_TRIED), mine], BACKGROUND, axis=0)
    return tried
