"""What a training of any configuration of curves.yaml would have reported: two models of the recorded curves, their
errors by cross-validation, and the recorded noise between seeds. What holds on one of them only, does not hold."""

from __future__ import annotations

import gzip
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from recording import OBJECTIVES, SWEEP, TABLE
from scipy.stats import spearmanr
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Matern, WhiteKernel
from sklearn.metrics import r2_score
from sklearn.model_selection import GroupKFold

from search.config.load import load_sweep
from search.config.sweep import Sweep
from search.standings.scales import Scales

FOLDS = 5
WORST = 2.0
"""Cap of the scores: what is worse than twice the mean color's counts as twice as bad, here and in the replay."""
NEIGHBORS = 12
"""Recorded residuals, of the trainings most like the one replayed, that its noise is drawn from."""
Params = Mapping[str, Any]


class Encoding:
    """Parameters as a vector: a range scaled to [0, 1], 1/2 where its branch was not taken; a choice one-hot."""

    def __init__(self, parameters: Mapping[str, BaseDistribution]) -> None:
        self.parameters = parameters

    def __call__(self, params: Params) -> np.ndarray:
        vector: list[float] = []
        for name, distribution in self.parameters.items():
            if isinstance(distribution, CategoricalDistribution):
                vector += [float(name in params and params[name] == choice) for choice in distribution.choices]
            else:
                assert isinstance(distribution, FloatDistribution)
                vector.append(_share(params[name], distribution) if name in params else 0.5)
        return np.array(vector)


def _share(value: float, within: FloatDistribution) -> float:
    scale = math.log if within.log else float
    return (scale(value) - scale(within.low)) / (scale(within.high) - scale(within.low))


@dataclass(frozen=True)
class Table:
    """The recorded trainings; `curves` holds the logarithms of the objectives [training, evaluation, objective]."""

    sweep: Sweep
    scales: Scales
    x: np.ndarray
    configurations: np.ndarray
    diverged: np.ndarray
    """Step at which a training diverged, 0 for one that completed."""
    curves: np.ndarray
    """NaN after a divergence."""

    @classmethod
    def load(cls) -> Table:
        data = json.loads(gzip.decompress(TABLE.read_bytes()))
        return cls.of(load_sweep(SWEEP), data["trainings"], data["baselines"])

    @classmethod
    def of(cls, sweep: Sweep, trainings: Sequence[Mapping[str, Any]], baselines: Mapping[str, float]) -> Table:
        scales = Scales.of(baselines, sweep.config.objectives)
        steps = evaluation_steps(sweep)
        worst = scales.floor + WORST * (scales.mean_color - scales.floor)
        encode = Encoding(sweep.space.parameters())
        curves = np.full((len(trainings), len(steps), len(OBJECTIVES)), np.nan)
        for curve, training in zip(curves, trainings, strict=True):
            for step, *values in training["curve"]:
                curve[steps.index(step)] = np.log(np.minimum(values, [WORST * scales.trivial_mse, worst]))
        return cls(
            sweep,
            scales,
            np.array([encode(training["params"]) for training in trainings]),
            np.array([training["configuration"] for training in trainings]),
            np.array([training["diverged"] or 0 for training in trainings]),
            curves,
        )

    @cached_property
    def completed(self) -> np.ndarray:
        return self.diverged == 0

    def foresight(self, steps: int) -> list[float]:
        """Rank correlation of each objective at this step with itself at full fidelity."""
        curves = self.curves[self.completed]
        early = curves[:, evaluation_steps(self.sweep).index(steps)]
        return [float(spearmanr(early[:, index], curves[:, -1, index]).statistic) for index in range(len(OBJECTIVES))]

    def noise(self) -> tuple[np.ndarray, np.ndarray]:
        """(mean, residual) of every curve of a configuration that was trained with several seeds.

        Residuals are what a seed changes; they are widened by the degree of freedom that the mean takes.
        """
        means, residuals = [], []
        for number in np.unique(self.configurations):
            mine = self.curves[(self.configurations == number) & self.completed]
            if len(mine) > 1:
                means.append(np.broadcast_to(mine.mean(0), mine.shape))
                residuals.append((mine - mine.mean(0)) * math.sqrt(len(mine) / (len(mine) - 1)))
        return np.concatenate(means), np.concatenate(residuals)


def evaluation_steps(sweep: Sweep) -> list[int]:
    evaluate = sweep.config.base["evaluate"]
    steps = {*range(evaluate["every"], sweep.steps + 1, evaluate["every"]), *evaluate.get("also_at", ()), sweep.steps}
    return sorted(steps)


def curve_model(num_features: int) -> GaussianProcessRegressor:
    """A Gaussian process of one objective's logarithm at all evaluations, with a length for every parameter."""
    kernel = ConstantKernel(1.0, (1e-2, 1e2)) * Matern(np.ones(num_features), (0.1, 100.0), nu=2.5)
    return GaussianProcessRegressor(kernel + WhiteKernel(0.1, (1e-3, 1.0)), normalize_y=True, random_state=0)


class Trees:
    """A forest of all objectives' logarithms at all evaluations (Geurts et al. 2006)."""

    def __init__(self, num_features: int) -> None:
        self.model = ExtraTreesRegressor(60, min_samples_leaf=2, max_features=max(1, num_features // 2), random_state=0)

    def fit(self, x: np.ndarray, curves: np.ndarray) -> Trees:
        self.shape = curves.shape[1:]
        self.model.fit(x, curves.reshape(len(x), -1))
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        """The forest's own mean, without what its `predict` costs beside: ten times as fast for one row."""
        rows, total = x.astype(np.float32), np.zeros((len(x), math.prod(self.shape)))
        for tree in self.model.estimators_:
            total += tree.tree_.predict(rows)[:, :, 0]
        return (total / len(self.model.estimators_)).reshape(len(x), *self.shape)


class Gaussian:
    """A Gaussian process per objective."""

    def __init__(self, num_features: int) -> None:
        self.models = [curve_model(num_features) for _ in OBJECTIVES]

    def fit(self, x: np.ndarray, curves: np.ndarray) -> Gaussian:
        self.models = [fit(model, x, curves[:, :, index]) for index, model in enumerate(self.models)]
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        return np.stack([model.predict(x) for model in self.models], axis=-1)


TRUTHS: dict[str, type[Gaussian] | type[Trees]] = {"Gaussian process": Gaussian, "trees": Trees}


def divergence_model(num_features: int) -> GaussianProcessClassifier:
    return GaussianProcessClassifier(ConstantKernel() * RBF(np.ones(num_features), (0.3, 100.0)), random_state=0)


def fit(model: Any, x: np.ndarray, y: np.ndarray) -> Any:
    """The model fitted; a parameter without effect has a length at its bound, which is no failure."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(x, y)


@dataclass
class Training:
    """What a replayed training reports: (step, objectives) in turn; after the last comes the divergence, if any."""

    reports: list[tuple[int, tuple[float, float]]]
    diverged: int | None


class Surrogate:
    """Trainings of any configuration, with one of TRUTHS as what they come to without noise."""

    def __init__(self, table: Table, truth: str) -> None:
        self.sweep, self.scales = table.sweep, table.scales
        self.steps = evaluation_steps(table.sweep)
        self.encode = Encoding(table.sweep.space.parameters())
        x, curves = table.x[table.completed], table.curves[table.completed]
        self.model = TRUTHS[truth](x.shape[1]).fit(x, curves)
        self.diverges = 0.0 if table.completed.all() else fit(divergence_model(x.shape[1]), table.x, ~table.completed)
        self.divergence_steps = table.diverged[~table.completed]
        self.levels, self.residuals = table.noise()

    def means(self, params: Sequence[Params]) -> np.ndarray:
        """Expected logarithms [training, evaluation, objective] of trainings that complete."""
        return self.model.predict(np.array([self.encode(each) for each in params]))

    def mean(self, params: Params) -> np.ndarray:
        return self.means([params])[0]

    def true_metrics(self, params: Params) -> dict[str, float]:
        """Objectives at full fidelity, without noise."""
        return dict(zip(OBJECTIVES, map(float, np.exp(self.mean(params)[-1])), strict=True))

    def noisy(self, mean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A curve with a recorded residual as its noise, of one of the recorded trainings that end most like it."""
        return np.exp(mean + self.residuals[rng.choice(self.nearest(mean[-1:])[0])])

    def nearest(self, finals: np.ndarray) -> np.ndarray:
        """Indices [training, neighbor] of the residuals that the noise of trainings with these expected logarithms
        [training, objective] at full fidelity is drawn from."""
        distances = np.abs(self.levels[:, -1] - finals[:, None]).sum(-1)
        return distances.argsort(axis=1, kind="stable")[:, :NEIGHBORS]

    def chances_of_divergence(self, params: Sequence[Params]) -> np.ndarray:
        if isinstance(self.diverges, float):
            return np.full(len(params), self.diverges)
        return self.diverges.predict_proba(np.array([self.encode(each) for each in params]))[:, 1]

    def training(self, params: Params, rng: np.random.Generator) -> Training:
        """One training of `params`."""
        curve = self.noisy(self.mean(params), rng)
        diverges = rng.random() < self.chances_of_divergence([params])[0]
        diverged = int(rng.choice(self.divergence_steps)) if diverges else None
        reports = [(step, (float(mse), float(fd))) for step, (mse, fd) in zip(self.steps, curve, strict=True)]
        return Training([each for each in reports if diverged is None or each[0] < diverged], diverged)


@dataclass
class Fit:
    """Quality of a model on configurations that it was not fitted to."""

    r2: float
    rank: float
    error: float
    """Root mean square, of the logarithm."""
    noise: float
    """Standard deviation between seeds, of the logarithm."""


def cross_validate(table: Table, truth: str) -> dict[str, Fit]:
    """Errors of each objective at full fidelity, where they matter: on the better half of the configurations."""
    predicted = np.full((len(table.x), len(OBJECTIVES)), np.nan)
    for train, test in GroupKFold(FOLDS).split(table.x, groups=table.configurations):
        fitted = train[table.completed[train]]
        model = TRUTHS[truth](table.x.shape[1]).fit(table.x[fitted], table.curves[fitted])
        predicted[test] = model.predict(table.x[test])[:, -1]
    final = table.curves[:, -1]
    noise = np.sqrt((table.noise()[1][:, -1] ** 2).mean(0))
    quality = np.where(table.completed, final.sum(-1), np.inf)
    good = table.completed & (quality <= np.median(quality[table.completed]))
    fits = {}
    for index, name in enumerate(OBJECTIVES):
        true, guess = final[good, index], predicted[good, index]
        error = math.sqrt(((true - guess) ** 2).mean())
        fits[name] = Fit(r2_score(true, guess), spearmanr(true, guess).statistic, error, float(noise[index]))
    return fits
