"""Objectives, samplers and schedulers that a sweep may name in its YAML."""

from __future__ import annotations

from typing import Annotated, Literal

from optuna.distributions import BaseDistribution
from pydantic import AfterValidator, Field

from search.config.space import Space
from vaegan_core.evaluation import OBJECTIVES
from vaegan_core.problems import Config


def _can_be_an_objective(key: str) -> str:
    if key not in OBJECTIVES:
        *others, last = map(repr, OBJECTIVES)
        raise ValueError(f"must be {', '.join(others)} or {last}, but got {key!r}")
    return key


Objective = Annotated[str, AfterValidator(_can_be_an_objective), Field(json_schema_extra={"enum": list(OBJECTIVES)})]
"""Key of a validation metric that a sweep may minimize."""

MODELS = ("tpe", "gp", "cmaes")
"""Samplers that build a model of the results, and until then draw from priors and a design."""
LEARNS_DIVERGENCE = ("tpe",)
"""Samplers that learn from a diverged trial to stay away; the others only look at completed trials."""
ONE_OBJECTIVE = ("cmaes",)
"""Samplers that cannot minimize several objectives."""
UNCONSTRAINED = ("cmaes", "random", "qmc", "grid")
"""Samplers that learn nothing from a violated constraint."""
UNGUIDED = ("random", "qmc", "grid")
"""Samplers that learn from no result."""
MUTABLE = ("loss.", "optimizer.")
"""Prefixes of parameters that leave the networks, and so a checkpoint's tensors, as they are."""
IMMUTABLE = ("loss.kl.estimator",)
"""Those among them that decide which tensors a checkpoint has."""
MOST_WAITING = 4
"""Stopped trials of a rung whose checkpoints are kept, because they may get a second chance: the best ones."""


class SamplerConfig(Config):
    """Method that chooses the trials. `qmc` (scrambled Sobol points) and `grid` are our own, and know branches; the
    others are Optuna's."""

    name: Literal["tpe", "random", "qmc", "gp", "nsga2", "nsga3", "cmaes", "grid"] = "tpe"
    startup_trials: Annotated[int, Field(ge=1, le=10**6)] = 10
    """Random trials before `tpe`, `gp` and `cmaes` build their model."""
    population: Annotated[int, Field(ge=2, le=10**6)] = 20
    """Trials of a generation of `nsga2` and `nsga3`."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


class AshaConfig(Config):
    """Asynchronous successive halving (Li et al. 2020): a rung keeps its best 1/reduction_factor; first arrivals go on.

    With several objectives "best" is by non-dominated front, then by crowding distance (Deb et al. 2002), unless one
    `metric` is named.
    """

    name: Literal["asha"]
    min_steps: Annotated[int, Field(ge=1)]
    """Steps of the first rung; each further rung is reduction_factor times as far."""
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    second_chance: bool = True
    """Whether a stopped trial goes on from its checkpoint once its place among those that came later would keep it."""
    audit: Annotated[float, Field(ge=0, le=1)] = 0.02
    """Share of the trials, chosen at random, that are never stopped: they show what early stopping costs."""
    metric: Objective | None = None


class MedianConfig(Config):
    """Median stopping (Golovin et al. 2017, sec. 3.2.2): a trial ends whose best value so far is worse than the median
    of the other trials' means up to the same step."""

    name: Literal["median"]
    min_steps: Annotated[int, Field(ge=1)]
    """Steps before which no trial is stopped."""
    min_trials: Annotated[int, Field(ge=1)] = 4
    """Other trials that must have come as far."""
    audit: Annotated[float, Field(ge=0, le=1)] = 0.02
    """Share of the trials, chosen at random, that are never stopped: they show what early stopping costs."""
    metric: Objective | None = None
    """Required where there are several objectives."""


class PbtConfig(Config):
    """Population based training (Jaderberg et al. 2017): at each multiple of `every` steps, a trial among the
    worst `quantile` continues from the state of one among the best, with that one's parameters changed. It is compared
    with the trials that have come as far: the first to reach a step continues unchanged."""

    name: Literal["pbt"]
    every: Annotated[int, Field(ge=1)]
    """Steps between two looks at the population, a multiple of evaluate.every."""
    quantile: Annotated[float, Field(gt=0, le=0.5)] = 0.25
    resample: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Probability that a parameter is drawn anew; else a number is multiplied by 0.8 or 1.25, and a choice kept."""
    metric: Objective | None = None
    """Required where there are several objectives."""


class NoSchedulerConfig(Config):
    """Every trial runs to its last step."""

    name: Literal["none"]


def mutable_parameters(space: Space) -> dict[str, BaseDistribution]:
    """Parameters that may change while a trial runs; a branch keeps its choice, because its parameters depend on it,
    and the KL's estimator stays, because the state of a donor has the moments of its own."""
    branches = set(space.branches())
    return {
        name: distribution
        for name, distribution in space.parameters().items()
        if name.startswith(MUTABLE) and name not in IMMUTABLE and name not in branches
    }
