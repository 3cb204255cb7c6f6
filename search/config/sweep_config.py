"""SweepConfig: everything about one sweep, read from YAML; every error at once, with its YAML path."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from search.config.strategies import (
    ONE_OBJECTIVE,
    UNCONSTRAINED,
    UNGUIDED,
    AshaConfig,
    MedianConfig,
    NoSchedulerConfig,
    Objective,
    PbtConfig,
    SamplerConfig,
)
from search.redaction import has_password, redact
from vaegan_core.evaluation import OBJECTIVES, PIXEL_MSE, SAMPLES_FD, VALIDATION_METRICS
from vaegan_core.problems import Config, refuse
from vaegan_core.strict_yaml import dump_yaml


class BudgetConfig(Config):
    """Whichever comes first ends the sweep: running trials stop at their next evaluation, and can be taken up again."""

    trials: Annotated[int, Field(ge=1)]
    hours: Annotated[float, Field(gt=0)] | None = None
    """Wall time of one `sweep` or `resume`."""
    gpu_hours: Annotated[float, Field(gt=0)] | None = None
    """Of all attempts at all trials since the sweep began: their time times resources.gpu."""
    disk_gb: Annotated[float, Field(gt=0)] | None = None
    """Of the sweep's directory."""


class ConfirmConfig(Config):
    """The best trials are trained again at the end, each with `seeds` fresh seeds; the mean of these decides."""

    top: Annotated[int, Field(ge=1)]
    seeds: Annotated[int, Field(ge=2)]


class ResourcesConfig(Config):
    """What one trial takes."""

    cpu: Annotated[int, Field(ge=1)] = 1
    gpu: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"
    """GPUs, or a share of one. `auto`: the largest trial is tried out, and as many share a GPU as its memory holds; 0
    where there is no GPU."""
    max_concurrent: Annotated[int, Field(ge=1)] | None = None
    """Null: as many as fit."""

    @field_validator("gpu")
    @classmethod
    def _whole_above_one(cls, gpu: float | str) -> float | str:
        if isinstance(gpu, float) and gpu > 1 and gpu != int(gpu):
            raise ValueError(f"must be at most 1, or a whole number, but got {gpu}")
        return gpu


class TrackingConfig(Config):
    uri: str | None = None
    """MLflow tracking URI; null: $MLFLOW_TRACKING_URI, else sqlite:///runs/mlflow.db. A password belongs into the
    environment, for this file is kept with the sweep."""
    experiment: Annotated[str, Field(min_length=1)] = "vaegan"
    keep_models: Annotated[int, Field(ge=1)] = 3
    """Weights of so many of the best trials are kept, and go to MLflow; those of the others are removed."""

    @field_validator("uri")
    @classmethod
    def _without_password(cls, uri: str | None) -> str | None:
        if uri is not None and has_password(uri):
            raise ValueError(
                f"must not hold a password, for this file is kept with the sweep, but got {redact(uri)}; set "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or the whole in MLFLOW_TRACKING_URI"
            )
        return uri


@dataclass(frozen=True)
class Constraint:
    """A bound on a validation metric of the last evaluation."""

    metric: str
    relation: Literal["<=", ">="]
    bound: float

    @classmethod
    def parse(cls, text: str) -> Constraint:
        """From `METRIC <= NUMBER` or `METRIC >= NUMBER`. Raises ValueError."""
        match = re.fullmatch(r"\s*(\S+)\s*(<=|>=)\s*(\S+)\s*", text)
        try:
            if match is None or not math.isfinite(float(match[3])):
                raise ValueError
        except ValueError:
            raise ValueError(f"must look like 'val/kl_per_dim <= 1', but got {text!r}") from None
        if match[1] not in VALIDATION_METRICS:
            raise ValueError(f"must bound one of {', '.join(VALIDATION_METRICS)}, but got {match[1]!r}")
        return cls(match[1], "<=" if match[2] == "<=" else ">=", float(match[3]))

    def __str__(self) -> str:
        return f"{self.metric} {self.relation} {self.bound:g}"

    def violation(self, metrics: Mapping[str, float]) -> float:
        """By how much it is violated; at most 0 where it holds. A metric that the trial does not have violates it."""
        if self.metric not in metrics:
            return 1.0
        excess = metrics[self.metric] - self.bound
        return excess if self.relation == "<=" else -excess


class SweepConfig(Config):
    name: Annotated[str, Field(min_length=1, max_length=60)]
    base: dict[str, Any]
    """A TrialConfig; what the space gives may be left out."""
    space: dict[str, Any] = Field(default_factory=dict)
    points: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Named configurations to run first, by dotted name; what they leave open is sampled. Without a space the points
    are the whole sweep, and each may change any setting of the base."""
    objectives: tuple[Objective, ...] = (PIXEL_MSE, SAMPLES_FD)
    """To be minimised."""
    constraints: tuple[str, ...] = ()
    """Such as `val/kl_per_dim <= 1`, of the last evaluation; a trial that violates one is never called best."""
    sampler: SamplerConfig = SamplerConfig()
    scheduler: Annotated[AshaConfig | MedianConfig | PbtConfig | NoSchedulerConfig, Field(discriminator="name")] = (
        NoSchedulerConfig(name="none")
    )
    budget: BudgetConfig
    confirm: ConfirmConfig | None = None
    resources: ResourcesConfig = ResourcesConfig()
    retries: Annotated[int, Field(ge=0)] = 1
    """How often a trial that crashed is tried again, from its last checkpoint, before it counts as failed. Where memory
    ran out it is tried once more, alone on a GPU. A node's loss is no failure."""
    evaluation_minutes: Annotated[float, Field(gt=0)] = 60.0
    """A trial that reports nothing for so long is ended as hung, which counts as a crash."""
    tracking: TrackingConfig = TrackingConfig()

    @field_validator("name")
    @classmethod
    def _usable_as_directory(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise ValueError(f"must be made of letters, digits, '.', '_' and '-', but got {name!r}")
        return name

    @field_validator("objectives")
    @classmethod
    def _one_or_more_different(cls, objectives: tuple[str, ...]) -> tuple[str, ...]:
        if not objectives:
            raise ValueError(f"must name at least one of {', '.join(OBJECTIVES)}, but got none")
        if len(set(objectives)) < len(objectives):
            raise ValueError(f"names an objective twice: {', '.join(objectives)}")
        return objectives

    @field_validator("constraints")
    @classmethod
    def _readable(cls, constraints: tuple[str, ...]) -> tuple[str, ...]:
        for text in constraints:
            Constraint.parse(text)
        return constraints

    @model_validator(mode="after")
    def _parts_fit_each_other(self) -> Self:
        refuse(_misfits(self))
        return self

    def to_yaml(self) -> str:
        return dump_yaml(self.model_dump(mode="json", exclude_none=True))


FITS_ALL: dict[str, Any] = {
    "name": "sweep",
    "base": {},
    "budget": {"trials": 1},
    "objectives": [PIXEL_MSE],
    "sampler": {"name": "random"},
}
"""Parts of a sweep that have no misfit, whatever the others are; nor have the defaults of those that are not here."""


def _misfits(config: SweepConfig) -> Iterable[tuple[str, str]]:
    """What is wrong between a sweep's parts, each right by itself."""
    sampler, scheduler = config.sampler.name, config.scheduler
    if sampler in ONE_OBJECTIVE and len(config.objectives) > 1:
        yield "sampler.name", f"{sampler} has one objective, but objectives names {len(config.objectives)}"
    if isinstance(scheduler, MedianConfig | PbtConfig) and scheduler.metric is None and len(config.objectives) > 1:
        yield "scheduler", f"metric must say which objective {scheduler.name} looks at, for there are several"
    if isinstance(scheduler, PbtConfig) and sampler not in UNGUIDED:
        yield (
            "scheduler.name",
            f"pbt changes parameters on the way, which sampler.name {sampler} would learn from wrongly; "
            f"use one of {', '.join(UNGUIDED)}",
        )
    if config.constraints and sampler in UNCONSTRAINED and sampler not in UNGUIDED:
        yield "constraints", f"cannot reach sampler.name {sampler}; use tpe, gp, nsga2 or nsga3"
