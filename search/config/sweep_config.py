"""SweepConfig: everything about one sweep, read from YAML; every error at once, with its YAML path."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import optuna
from optuna.trial import FixedTrial
from pydantic import Field, ValidationError, field_validator, model_validator

from search.config.space import Branch, Node, Problems, Space, build_trial, parse_space, values_of
from search.config.strategies import (
    OBJECTIVES,
    ONE_OBJECTIVE,
    UNCONSTRAINED,
    UNGUIDED,
    AshaConfig,
    MedianConfig,
    Metric,
    NoSchedulerConfig,
    PbtConfig,
    SamplerConfig,
    mutable_parameters,
)
from search.redaction import has_password, redact
from vaegan_core.config import TrialConfig
from vaegan_core.data.frames import MANIFEST_FILE
from vaegan_core.evaluation import PIXEL_MSE, VALIDATION_METRICS
from vaegan_core.problems import Config, ConfigError, problems_and_misfits, refuse
from vaegan_core.strict_yaml import dump_yaml, load_yaml, set_override, set_value

COMBINATIONS_TRIED = 200
FIXED_SETTINGS = ("frames", "train.steps")


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


def flat(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested data by dotted key."""
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


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
    objectives: tuple[Metric, ...] = ("val/pixel_mse", "val/samples_fd")
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


@dataclass(frozen=True)
class Sweep:
    """A validated sweep: its configuration and the space parsed from it."""

    config: SweepConfig
    space: Space

    def trial(self, values: Mapping[str, Any]) -> TrialConfig:
        """The TrialConfig of suggested `values`."""
        return build_trial(self.config.base, values)

    @property
    def num_trials(self) -> int:
        """Trials of the whole budget, replicates apart; a grid may have fewer points."""
        trials = self.config.budget.trials
        if self.config.sampler.name != "grid":
            return trials
        return int(min(trials, self.space.size() + len(self.config.points)))

    @cached_property
    def constraints(self) -> tuple[Constraint, ...]:
        return tuple(Constraint.parse(text) for text in self.config.constraints)

    def feasible(self, metrics: Mapping[str, float]) -> bool:
        return all(constraint.violation(metrics) <= 0 for constraint in self.constraints)

    @property
    def stopping_metrics(self) -> tuple[str, ...]:
        """What early stopping looks at: the metric that the scheduler names, else the objectives."""
        metric = getattr(self.config.scheduler, "metric", None)
        return (metric,) if metric else self.config.objectives

    @property
    def rungs(self) -> tuple[int, ...]:
        """Steps at which a trial may be stopped early, ascending, all below the full number of steps."""
        scheduler = self.config.scheduler
        if not isinstance(scheduler, AshaConfig):
            return ()
        levels, step = [], scheduler.min_steps
        while step < self.steps:
            levels.append(step)
            step *= scheduler.reduction_factor
        return tuple(levels)

    @property
    def steps(self) -> int:
        """Steps of full fidelity."""
        return int(self.config.base["train"]["steps"])


def load_sweep(path: Path | str, overrides: Iterable[str] = (), *, need_frames: bool = False) -> Sweep:
    """A sweep from its YAML file with `a.b=c` overrides. Raises ConfigError with every error of the file.

    With `need_frames` a frame set, or a file of Inception weights, that is not there is one of them.
    """
    data, overrides = load_yaml(path), list(overrides)
    for assignment in overrides:
        if assignment.startswith("preset="):
            set_override(data, assignment)
    _apply_preset(data, str(path))
    for assignment in overrides:
        if not assignment.startswith("preset="):
            set_override(data, assignment)
    _make_weights_absolute(data.get("base"))
    missing = _problems_of_files(data.get("base")) if need_frames else []
    try:
        sweep = parse_sweep(data, str(path))
    except ConfigError as error:
        raise ConfigError(str(path), error.problems + missing) from None
    if missing:
        raise ConfigError(str(path), missing)
    return sweep


def _apply_preset(data: dict[str, Any], what: str) -> None:
    """Puts the values of the chosen one of `presets` (dotted keys) into the rest of the file, in place."""
    presets, chosen = data.pop("presets", {}), data.pop("preset", None)
    if not isinstance(presets, dict) or not all(isinstance(values, dict) for values in presets.values()):
        raise ConfigError(what, [("presets", "must map names to mappings of dotted keys to values")])
    if chosen is None:
        return
    if chosen not in presets:
        raise ConfigError(what, [("preset", f"must be one of {', '.join(presets) or 'presets'}, but got {chosen!r}")])
    for key, value in presets[chosen].items():
        set_value(data, str(key), value, what)


def _make_weights_absolute(base: Any) -> None:
    """Workers, which read the file themselves, may run elsewhere than the command; in place."""
    weights = _inception_weights(base)
    if weights is not None:
        base["evaluate"]["inception_weights"] = str(Path(weights).absolute())


def _inception_weights(base: Any) -> str | None:
    evaluate = base.get("evaluate") if isinstance(base, dict) else None
    weights = evaluate.get("inception_weights") if isinstance(evaluate, dict) else None
    return weights if isinstance(weights, str) else None


def _problems_of_files(base: Any) -> Problems:
    """Files that the base names and that are not there."""
    problems: Problems = []
    frames, weights = base.get("frames") if isinstance(base, dict) else None, _inception_weights(base)
    if isinstance(frames, str) and not (Path(frames) / MANIFEST_FILE).is_file():
        problems.append(("base.frames", f"no frame set at {frames}; make one with: vaegan data doom -o {frames}"))
    if weights is not None and not Path(weights).is_file():
        rule = f"no file at {weights}; download it (README says from where) or leave the key away"
        problems.append(("base.evaluate.inception_weights", rule))
    return problems


def parse_sweep(data: dict[str, Any], what: str) -> Sweep:
    """A sweep from plain data; raises ConfigError with every problem."""
    problems: Problems = []
    config: SweepConfig | None = None
    try:
        config = SweepConfig.model_validate(data)
    except ValidationError as error:
        problems += problems_and_misfits(error, SweepConfig, data, FITS_ALL)
    raw_space, base = data.get("space", {}), data.get("base")
    if isinstance(raw_space, dict):
        space, found = parse_space(raw_space)
        problems += found
        if isinstance(base, dict):
            problems += _problems_of_base(base, space, [path for path, _ in found])
        if raw_space:
            problems += _problems_of_points(data.get("points"), space, [path for path, _ in found])
        else:
            problems += _problems_of_points_alone(data, [path for path, _ in problems])
        problems += _problems_of_grid(data, space)
        problems += _problems_of_population(data, space, [path for path, _ in found])
    problems += _problems_of_scheduler(data.get("scheduler"), base)
    if problems or config is None:
        raise ConfigError(what, problems)
    return Sweep(config, space)


def _problems_of_base(base: Mapping[str, Any], space: Space, reported: Sequence[str]) -> Problems:
    """What a few hundred random suggestions, merged into the base, are refused for: the base's own errors, and
    combinations of values that cannot go together. Of each setting one, and none that the space is `reported` for."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    broken = [re.sub(r"\.one_of\.[^.]+", "", path).removeprefix("space.") for path in reported]
    found: dict[str, str] = {}
    for name in space.names():
        if name in FIXED_SETTINGS or name.startswith("evaluate."):
            found[f"space.{name}"] = f"must be the same in all trials, or they could not be compared; set base.{name}"
    for _ in range(COMBINATIONS_TRIED):
        values = space.suggest(study.ask())
        try:
            build_trial(base, values)
        except ConfigError as error:
            for path, message in error.problems:
                if not any(_leads_to(path, name) or _leads_to(name, path) for name in broken):
                    found.setdefault(_written_at(path, values, space), message)
        if len(found) > 20 or not space.nodes:
            break
    return list(found.items())


def _written_at(path: str, values: Mapping[str, Any], space: Space) -> str:
    """Where the sweep's YAML gives a trial's `path`: in the space, within the branch chosen, or in the base."""
    for node in space.nodes:
        branch = node.name.rpartition(".")[0]
        if isinstance(node, Branch) and _leads_to(branch, path):
            return f"space.{branch}.one_of.{values[node.name]}{path.removeprefix(branch)}"
    return f"space.{path}" if path in values else f"base.{path}".rstrip(".")


def _leads_to(start: str, path: str) -> bool:
    return path == start or path.startswith(f"{start}.")


def _problems_of_points(points: Any, space: Space, reported: Sequence[str]) -> Problems:
    if not isinstance(points, dict):
        return []
    parameters = space.parameters()
    problems: Problems = []
    for point, values in points.items():
        for name, value in values.items() if isinstance(values, dict) else ():
            where = f"points.{point}.{name}"
            if name in parameters and not _contains(parameters[name], value):
                problems.append((where, f"lies outside the space: {value!r}"))
            elif name in parameters and name not in _reachable(space.nodes, values):
                problems.append((where, "belongs to another branch than the point chooses"))
            elif name not in parameters and not any(_leads_to(f"space.{name}", path) for path in reported):
                problems.append((where, "is not a parameter of the space"))
    return problems


def _problems_of_points_alone(data: Mapping[str, Any], reported: Sequence[str]) -> Problems:
    """Of a sweep without a space: every point is built into a trial. The base's own errors are `reported` already."""
    base, points, budget = data.get("base"), data.get("points"), data.get("budget")
    if not isinstance(points, dict) or not points:
        return [("points", "must name at least one configuration where there is no space")]
    problems: Problems = []
    trials = budget.get("trials") if isinstance(budget, dict) else None
    if isinstance(trials, int) and trials > len(points):
        problems.append(("budget.trials", f"must be at most {len(points)}, the number of points, but got {trials}"))
    for point, values in points.items():
        if not isinstance(base, dict) or not isinstance(values, dict):
            continue
        for name in values:
            if name in FIXED_SETTINGS or name.startswith("evaluate."):
                rule = "must be the same in all trials, or they could not be compared"
                problems.append((f"points.{point}.{name}", f"{rule}; set base.{name}"))
        try:
            build_trial(base, values)
        except ConfigError as error:
            found = [(path, message) for path, message in error.problems if f"base.{path}".rstrip(".") not in reported]
            problems += [(f"points.{point}.{path}".rstrip("."), message) for path, message in found]
    return problems


def _reachable(nodes: Iterable[Node], values: Mapping[str, Any]) -> set[str]:
    """Names that a point with these `values` can give: in a branch it chooses, those of that branch alone."""
    names: set[str] = set()
    for node in nodes:
        names.add(node.name)
        if isinstance(node, Branch):
            chosen = values.get(node.name)
            options = [node.options[chosen]] if chosen in node.options else node.options.values()
            names |= set().union(*(_reachable(option, values) for option in options))
    return names


def lies_in(space: Space, values: Mapping[str, Any]) -> bool:
    """Whether a point with these `values`, and no others, is one of the space."""
    try:
        suggested = space.suggest(FixedTrial(dict(values)))
    except ValueError:
        return False
    parameters = space.parameters()
    return {name for name in suggested if name in parameters} == set(values) and all(
        _contains(parameters[name], value) for name, value in values.items()
    )


def _contains(distribution: optuna.distributions.BaseDistribution, value: Any) -> bool:
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except (ValueError, TypeError):
        return False


def _problems_of_scheduler(scheduler: Any, base: Any) -> Problems:
    train, evaluate = (base.get(key) if isinstance(base, dict) else None for key in ("train", "evaluate"))
    steps = train.get("steps") if isinstance(train, dict) else None
    every = evaluate.get("every") if isinstance(evaluate, dict) else None
    if not isinstance(scheduler, dict):
        return []
    problems: Problems = []
    for key in ("min_steps", "every"):
        first = scheduler.get(key)
        if isinstance(first, int | float) and isinstance(steps, int | float) and first >= steps:
            problems.append((f"scheduler.{key}", f"must be less than base.train.steps, but got {first} and {steps}"))
    look = scheduler.get("every")
    if isinstance(look, int) and isinstance(every, int) and every > 0 and look % every:
        rule = "must be a multiple of base.evaluate.every"
        problems.append(("scheduler.every", f"{rule}, but got {look} and {every}"))
    return problems


def _problems_of_grid(data: Mapping[str, Any], space: Space) -> Problems:
    """A grid needs a number of values for every parameter."""
    sampler = data.get("sampler")
    if not isinstance(sampler, dict) or sampler.get("name") != "grid":
        return []
    return [
        (f"space.{name}", "has no end of values, so there is no grid; list them, or give the range a step")
        for name, distribution in space.parameters().items()
        if values_of(distribution) is None
    ]


def _problems_of_population(data: Mapping[str, Any], space: Space, reported: Sequence[str]) -> Problems:
    """Population based training needs something to change; what the space is `reported` for may be just that."""
    scheduler = data.get("scheduler")
    if not isinstance(scheduler, dict) or scheduler.get("name") != "pbt" or mutable_parameters(space) or reported:
        return []
    return [("scheduler.name", "pbt needs a parameter of loss or optimizer in the space that may change")]
