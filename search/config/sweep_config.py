"""SweepConfig: everything about one sweep as its YAML gives it, and what must hold between its parts."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator

from search.config.questions import BlocksConfig, QuestionConfig
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
from search.paths import with_known_scheme, with_storage_scheme
from search.redaction import has_secret, redact
from vaegan_core.evaluation import LAYOUT_FD, OBJECTIVES, PIXEL_MSE, VALIDATION_METRICS
from vaegan_core.metrics.diagnoses import DIAGNOSES, MODE_COLLAPSE, POSTERIOR_COLLAPSE
from vaegan_core.problems import Config, Problem, Rule, rule
from vaegan_core.spelling import did_you_mean
from vaegan_core.strict_yaml import dump_yaml


class BudgetConfig(Config):
    """The sweep ends at the limit that it reaches first: running trials stop at their next evaluation, and can be
    resumed."""

    trials: Annotated[int, Field(ge=0, le=10**6)]
    """Trials of points and sampler, without those that answer questions; 0: no others than those."""
    hours: Annotated[float, Field(gt=0)] | None = None
    """Wall time of one `sweep` or `resume`."""
    gpu_hours: Annotated[float, Field(gt=0)] | None = None
    """Time of all attempts at all trials since the sweep began, times resources.gpu."""
    disk_gb: Annotated[float, Field(gt=0)] | None = None
    """Size of the sweep's directory."""


class ConfirmConfig(Config):
    """The best trials are trained again at the end, each with `seeds` fresh seeds; their mean decides."""

    top: Annotated[int, Field(ge=1, le=1000)]
    seeds: Annotated[int, Field(ge=2, le=1000)]


def _none_or_two(seeds: int) -> int:
    if seeds == 1:
        raise ValueError("must be 0, or at least 2, because one seed has no interval, but got 1")
    return seeds


def _are_diagnoses(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name not in DIAGNOSES:
            rule = f"must name diagnoses of {', '.join(DIAGNOSES)}, but got {name!r}"
            raise ValueError(f"{rule}{did_you_mean(name, DIAGNOSES)}")
    return names


class PromoteConfig(Config):
    """What a trial must pass before `vaegan promote` gives its model an alias, besides a completed training, its
    constraints, and weights that are those of the sweep."""

    seeds: Annotated[int, Field(ge=0, le=1000), AfterValidator(_none_or_two)] | None = None
    """Fresh seeds that it must have been trained with again, none of them lost; the command trains what is missing. 0:
    none; null: as `confirm.seeds`, or else 3, because the interval of a mean reaches 9.0 standard deviations of a seed
    to each side with 2, but 2.5 with 3 (1.6 with 4)."""
    baseline: Annotated[float, Field(gt=0)] | None = 1.0
    """Pixel MSE, and the distance of samples if it is an objective, must stay below this share of what trivial pictures
    score; null: they need not."""
    diagnoses: Annotated[tuple[str, ...], AfterValidator(_are_diagnoses)] = (POSTERIOR_COLLAPSE, MODE_COLLAPSE)
    """Diagnoses that it must not have."""
    holder: Literal["better", "not_worse", "any"] = "better"
    """`better`: better by more than noise between seeds (95 %) than the version that has the alias; `not_worse`: not
    worse by more than noise; `any`: whatever it is."""
    tolerance: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Relative difference between the objectives of the stored weights, measured here, and the logged ones, where this
    machine is of another kind than the trial's; on the same kind of machine they must be equal."""


class ResourcesConfig(Config):
    """What one trial takes."""

    cpu: Annotated[int, Field(ge=1, le=10**6)] = 1
    gpu: Annotated[float, Field(ge=0, le=10**6)] | Literal["auto"] = "auto"
    """GPUs, or a share of one. `auto`: measured by running the largest trial, so that as many trials share a GPU as fit
    into its memory; 0 where there is no GPU."""
    max_concurrent: Annotated[int, Field(ge=1, le=10**6)] | None = None
    """Trials at a time, for which an autoscaler is asked; null: as many as fit."""

    @field_validator("gpu")
    @classmethod
    def _whole_above_one(cls, gpu: float | str) -> float | str:
        if isinstance(gpu, float) and gpu > 1 and gpu != int(gpu):
            raise ValueError(f"must be at most 1, or a whole number, but got {gpu}")
        return gpu

    def fitting(self, room: Mapping[str, float]) -> int:
        """How many trials fit into this "CPU" and "GPU" at once; what is left of one GPU helps no trial on another.

        Raises ValueError while `gpu` is auto.
        """
        gpu, cpus, gpus = float(self.gpu), room.get("CPU", 0.0), room.get("GPU", 0.0)
        trials = int(cpus / self.cpu)
        if gpu:
            trials = min(trials, int(gpus / gpu + 1e-6) if gpu > 1 else int(gpus) * int(1 / gpu + 1e-6))
        return trials


class TrackingConfig(Config):
    """Where MLflow keeps the runs, and which weights are kept."""

    uri: str | None = None
    """MLflow tracking URI; null: $MLFLOW_TRACKING_URI, else sqlite:///runs/mlflow.db. A password belongs in the
    environment, because this file is kept with the sweep."""
    experiment: Annotated[str, Field(min_length=1)] = "vaegan"
    keep_models: Annotated[int, Field(ge=1)] = 3
    """Number of best trials whose weights are kept and sent to MLflow; the weights of the others are removed."""

    @field_validator("uri")
    @classmethod
    def _usable_and_without_password(cls, uri: str | None) -> str | None:
        if uri is not None:
            with_known_scheme(uri)
        if uri is not None and has_secret(uri):
            raise ValueError(
                f"must not hold a password, because this file is kept with the sweep, but got {redact(uri)}; set "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or the whole URI in MLFLOW_TRACKING_URI"
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
            meant = did_you_mean(match[1], VALIDATION_METRICS)
            raise ValueError(f"must bound one of {', '.join(VALIDATION_METRICS)}, but got {match[1]!r}{meant}")
        return cls(match[1], "<=" if match[2] == "<=" else ">=", float(match[3]))

    def __str__(self) -> str:
        return f"{self.metric} {self.relation} {self.bound:g}"

    def violation(self, metrics: Mapping[str, float]) -> float:
        """Amount by which it is violated, at most 0 where it holds; 1 for a trial without the metric."""
        if self.metric not in metrics:
            return 1.0
        excess = metrics[self.metric] - self.bound
        return excess if self.relation == "<=" else -excess


def _usable_as_directory(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError(f"must be a letter or digit (a-z, A-Z, 0-9), then these, '.', '_' and '-', but got {name!r}")
    return name


def _one_or_more_different(objectives: tuple[str, ...]) -> tuple[str, ...]:
    if not objectives:
        raise ValueError(f"must name at least one of {', '.join(OBJECTIVES)}, but got none")
    if len(set(objectives)) < len(objectives):
        raise ValueError(f"names an objective twice: {', '.join(objectives)}")
    return objectives


def _satisfiable(constraints: tuple[str, ...]) -> tuple[str, ...]:
    read = [Constraint.parse(text) for text in constraints]
    for lower, upper in itertools.product(read, read):
        if (lower.metric, lower.relation, upper.relation) == (upper.metric, ">=", "<=") and lower.bound > upper.bound:
            raise ValueError(f"no trial can meet both {lower} and {upper}; change one of the bounds")
    return constraints


Scheduler = AshaConfig | MedianConfig | PbtConfig | NoSchedulerConfig


class SweepConfig(Config):
    """One sweep: many trainings of variants of one trial."""

    name: Annotated[str, Field(min_length=1, max_length=60), AfterValidator(_usable_as_directory)]
    base: dict[str, Any]
    """A TrialConfig; what the space gives may be left out."""
    space: dict[str, Any] = Field(default_factory=dict)
    points: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Named configurations to run first, by dotted name; what they leave open is sampled. Without a space the points
    are the whole sweep, and each may change any setting of the base."""
    questions: dict[str, QuestionConfig] = Field(default_factory=dict)
    """Questions by name, answered by blocks of trials that differ in one factor alone."""
    blocks: BlocksConfig = BlocksConfig()
    objectives: Annotated[tuple[Objective, ...], AfterValidator(_one_or_more_different)] = (PIXEL_MSE, LAYOUT_FD)
    """Metrics to minimize."""
    constraints: Annotated[tuple[str, ...], AfterValidator(_satisfiable)] = ()
    """Such as `val/kl_per_dim <= 1`, of the last evaluation; a trial that violates one is never called best."""
    sampler: SamplerConfig = SamplerConfig()
    scheduler: Annotated[Scheduler, Field(discriminator="name")] = NoSchedulerConfig(name="none")
    budget: BudgetConfig
    confirm: ConfirmConfig | None = None
    promote: PromoteConfig = PromoteConfig()
    resources: ResourcesConfig = ResourcesConfig()
    retries: Annotated[int, Field(ge=0, le=1000)] = 1
    """How often a trial that crashed is retried, from its last checkpoint, before it counts as failed. Where memory ran
    out it is retried once, alone on a GPU. The loss of a node is no failure."""
    evaluation_minutes: Annotated[float, Field(gt=0, le=10**6)] = 60.0
    """A trial that reports nothing for this time is ended as hung, which counts as a crash."""
    tracking: TrackingConfig = TrackingConfig()
    storage: Annotated[str, AfterValidator(with_storage_scheme)] | None = None
    """Where the journal and what trials go on from outlast this machine: `s3://…`, `gs://…`, or the absolute path of a
    directory that every machine has; null: $VAEGAN_STORAGE, else the sweep's own directory. Sweeps on several machines
    need one."""

    def to_yaml(self) -> str:
        promote = self.promote.model_dump(mode="json")  # with its nulls, because one of them is no default
        return dump_yaml(self.model_dump(mode="json", exclude_none=True) | {"promote": promote})


# --- Rules between the parts ------------------------------------------------------------------------------------------

RULES: list[Rule] = []


@rule(RULES, "sampler", "objectives")
def _sampler_takes_the_objectives(sampler: SamplerConfig, objectives: tuple[str, ...]) -> Iterator[Problem]:
    if sampler.name in ONE_OBJECTIVE and len(objectives) > 1:
        yield "sampler.name", f"{sampler.name} has one objective, but objectives names {len(objectives)}"


@rule(RULES, "scheduler", "objectives")
def _scheduler_knows_its_metric(scheduler: Scheduler, objectives: tuple[str, ...]) -> Iterator[Problem]:
    if isinstance(scheduler, MedianConfig | PbtConfig) and scheduler.metric is None and len(objectives) > 1:
        yield "scheduler", f"metric must say which objective {scheduler.name} looks at, because there are several"


@rule(RULES, "scheduler", "sampler")
def _sampler_bears_changing_parameters(scheduler: Scheduler, sampler: SamplerConfig) -> Iterator[Problem]:
    if isinstance(scheduler, PbtConfig) and sampler.name not in UNGUIDED:
        yield (
            "scheduler.name",
            f"pbt changes parameters during training, which would mislead sampler.name {sampler.name}; "
            f"use one of {', '.join(UNGUIDED)}",
        )


@rule(RULES, "scheduler", "confirm")
def _what_is_confirmed_stays_the_same(scheduler: Scheduler, confirm: ConfirmConfig | None) -> Iterator[Problem]:
    if isinstance(scheduler, PbtConfig) and confirm is not None:
        yield (
            "confirm",
            "repeats a trial with the parameters that it began with, and scheduler.name pbt changes them during "
            "training; leave confirm out, or take another scheduler",
        )


@rule(RULES, "constraints", "sampler")
def _sampler_heeds_constraints(constraints: tuple[str, ...], sampler: SamplerConfig) -> Iterator[Problem]:
    if constraints and sampler.name in UNCONSTRAINED and sampler.name not in UNGUIDED:
        yield "constraints", f"cannot reach sampler.name {sampler.name}; use tpe, gp, nsga2 or nsga3"
