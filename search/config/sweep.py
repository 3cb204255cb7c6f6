"""A validated sweep: its configuration, the space parsed from it, and what follows from both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Any

from optuna.distributions import BaseDistribution

from search.config.design import Group, Setup, groups
from search.config.distributions import at_quantile
from search.config.space import Space, build_trial
from search.config.strategies import AshaConfig
from search.config.sweep_config import Constraint, SweepConfig
from vaegan_core.config.training import EvaluateConfig
from vaegan_core.config.trial import TrialConfig


def flat(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested data, each with its dotted key."""
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


@dataclass(frozen=True)
class Sweep:
    """A validated sweep. `base`, `space` and `points` of its configuration are plain data."""

    config: SweepConfig
    space: Space

    def trial(self, values: Mapping[str, Any]) -> TrialConfig:
        """The TrialConfig of suggested `values`."""
        return build_trial(self.config.base, values)

    def trial_of_point(self, name: str) -> TrialConfig:
        """The TrialConfig of a named point. Raises ValueError naming what the point leaves to the sampler."""
        point, left = self.config.points[name], []

        def choose(parameter: str, distribution: BaseDistribution) -> Any:
            if parameter in point:
                return point[parameter]
            left.append(parameter)
            return at_quantile(distribution, 0.0)

        values = self.space.assign(choose)
        open_branches = [branch for branch in self.space.branches() if branch in left]
        below = tuple(branch.removesuffix(branch.rpartition(".")[2]) for branch in open_branches)
        left = [parameter for parameter in left if parameter in open_branches or not parameter.startswith(below)]
        if left:
            given = " ".join(f"--set points.{name}.{parameter}=…" for parameter in left)
            raise ValueError(f"leaves {', '.join(left)} to the sampler; give each with {given}")
        return self.trial(point | values)

    @property
    def num_trials(self) -> int:
        """Number of trials in the budget, without replicates; a grid may have fewer points."""
        trials = self.config.budget.trials
        if self.config.sampler.name != "grid":
            return trials
        return int(min(trials, self.space.size() + len(self.config.points)))

    @cached_property
    def constraints(self) -> tuple[Constraint, ...]:
        return tuple(Constraint.parse(text) for text in self.config.constraints)

    def feasible(self, metrics: Mapping[str, float]) -> bool:
        return all(constraint.violation(metrics) <= 0 for constraint in self.constraints)

    def is_audited(self, trial: int) -> bool:
        """Whether a trial is one of those that are never stopped; the same in every run of the sweep."""
        share = getattr(self.config.scheduler, "audit", 0.0)
        return Random(f"audit {self.config.sampler.seed} {trial}").random() < share

    @property
    def stopping_metrics(self) -> tuple[str, ...]:
        """Metrics that early stopping looks at: the one that the scheduler names, else the objectives."""
        metric = getattr(self.config.scheduler, "metric", None)
        return (metric,) if metric else self.config.objectives

    @cached_property
    def levels(self) -> tuple[int, ...]:
        """Steps at which trials can be compared, ascending: the rungs, else thirds of thirds; then the last step."""
        rungs = self.rungs or tuple(sorted({self.steps // 3**power for power in (1, 2, 3)} - {0}))
        return (*rungs, self.steps)

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

    @cached_property
    def evaluate(self) -> EvaluateConfig:
        """When trials are validated, and with how much."""
        return EvaluateConfig.model_validate(self.config.base["evaluate"])

    @property
    def steps(self) -> int:
        """Steps of full fidelity."""
        return int(self.config.base["train"]["steps"])

    @property
    def block_steps(self) -> int:
        """Steps of the trials of blocks."""
        return self.config.blocks.steps or self.steps

    @cached_property
    def groups(self) -> list[Group]:
        """The questions by what trials they share, if all are new."""
        return groups(self.setup, self.config.questions)

    @property
    def trials_of_block(self) -> int:
        """Trials of one block of all questions, if all are new."""
        return sum(group.size for group in self.groups)

    @cached_property
    def setup(self) -> Setup:
        """What the trials of blocks begin with."""
        return Setup(self.config.base, self.space, self.config.blocks)
