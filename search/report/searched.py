"""What a sweep searched, and its trials at equal steps: what every comparison of trials starts from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from search.config.sweep import Sweep
from search.names import Outcome
from search.standings.scales import ranking
from search.tracking.evaluations import Evaluations
from search.tracking.reader import SweepRun
from search.tracking.runs import text_of

ENOUGH = 30
"""Trials that must have reached a step for it to be the one at which trials are compared; else an earlier one."""
SMALLEST = 1e-300
"""Stands for 0 on a log scale, where only a named point outside the space can be."""
LOG_RATIO = 30.0
"""Observed values that differ by more than this factor are taken to be on a log scale, where the space is unknown."""


@dataclass(frozen=True)
class Searched:
    """One searched parameter."""

    name: str
    values: Mapping[int, float]
    """By number of the trials that have it: the number itself, or the index of the choice."""
    choices: tuple[str, ...] = ()
    """Empty for a range."""
    low: float = math.nan
    high: float = math.nan
    """Bounds of the range, of the space or else as observed."""
    log: bool = False
    whole: bool = False
    path: str = ""
    """Where the space's YAML has it, as `--set` writes it; "" where the space is unknown."""

    def place(self, number: int) -> float:
        """Where the trial's value lies in the range, 0 to 1."""
        value, low, high = self.values[number], self.low, self.high
        if self.log:
            value, low, high = math.log(max(value, SMALLEST)), math.log(low), math.log(high)
        return (value - low) / (high - low) if high > low else 0.5

    def at(self, place: float) -> float:
        """The value at a place in the range, which may lie outside 0 to 1."""
        if self.log:
            return math.exp(math.log(self.low) + place * (math.log(self.high) - math.log(self.low)))
        return self.low + place * (self.high - self.low)

    def text(self, value: float) -> str:
        """A value in words: with two digits, or more where the range is so narrow that they would not tell values
        apart."""
        if self.choices:
            return self.choices[int(value)]
        if self.whole:
            return f"{value:.0f}"
        size = min((each for each in (abs(value), (self.high - self.low) / 2) if each > 0), default=1.0)
        return f"{round(value, 1 - math.floor(math.log10(size))) + 0.0:.10g}"

    def column(self, numbers: Sequence[int]) -> np.ndarray:
        """Values of these trials [n]; NaN where a trial does not have it."""
        return np.array([self.values.get(number, math.nan) for number in numbers], float)


def searched(sweep: SweepRun, plan: Sweep | None) -> list[Searched]:
    """The searched parameters that any trial has, those that most trials have first."""
    texts: dict[str, dict[int, str]] = {}
    for trial in sweep.trials:
        for name, text in trial.params.items():
            texts.setdefault(name, {})[trial.number] = text
    distributions = plan.space.parameters() if plan else {}
    paths = dict(_paths(plan.config.space, "", "space")) if plan else {}
    found = [_searched(name, of, distributions.get(name), paths.get(name, "")) for name, of in texts.items()]
    return sorted(found, key=lambda each: (-len(each.values), each.name))


def _searched(name: str, texts: Mapping[int, str], distribution: Any, path: str) -> Searched:
    numbers = {number: _number(text) for number, text in texts.items()}
    if hasattr(distribution, "choices") or any(value is None for value in numbers.values()):
        choices = tuple(
            dict.fromkeys([*map(text_of, getattr(distribution, "choices", ())), *sorted(set(texts.values()))])
        )
        return Searched(name, {n: float(choices.index(text)) for n, text in texts.items()}, choices, path=path)
    values = {number: value for number, value in numbers.items() if value is not None}
    low = float(getattr(distribution, "low", min(values.values())))
    high = float(getattr(distribution, "high", max(values.values())))
    log = distribution.log if distribution is not None else low > 0 and high > LOG_RATIO * low
    whole = all(value == int(value) for value in values.values())
    return Searched(name, values, (), low, high, bool(log), whole, path)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _paths(space: object, prefix: str, path: str) -> Iterator[tuple[str, str]]:
    """(name, place in the YAML) of everything in a space that holds values."""
    if not isinstance(space, Mapping):
        return
    for key, node in space.items():
        name, where = f"{prefix}{key}", f"{path}.{key}"
        if isinstance(node, Mapping) and "one_of" in node:
            for option, inner in node["one_of"].items():
                yield from _paths(inner, f"{name}.", f"{where}.one_of.{option}")
        elif isinstance(node, Mapping) and not {"low", "high", "choices"} & set(node):
            yield from _paths(node, f"{name}.", where)
        else:
            yield name, where


@dataclass(frozen=True)
class Compared:
    """Trials at equal steps."""

    step: int
    numbers: tuple[int, ...]
    metrics: tuple[Mapping[str, float], ...]
    """The objectives of each at that step."""

    def values(self, objective: str) -> np.ndarray:
        return np.array([metrics[objective] for metrics in self.metrics], float)

    def ranked(self, sweep: SweepRun) -> list[int]:
        """Numbers, best first, by the objectives at that step."""
        if not self.numbers:  # a sweep may not have measured its baselines yet
            return []
        return [self.numbers[index] for index in ranking(self.metrics, sweep.objectives, sweep.scales)]


def compared(sweep: SweepRun, evaluations: Evaluations, plan: Sweep | None) -> Compared:
    """Trials at the last step that ENOUGH of them have reached; where there is none, at the one that most reached."""
    full = plan.steps if plan else max((trial.step for trial in sweep.completed), default=0)
    levels = plan.levels if plan else (full,)
    at: dict[int, dict[int, Mapping[str, float]]] = {level: {} for level in levels}
    for trial in sweep.trials:
        if trial.outcome == Outcome.COMPLETED and all(key in trial.final for key in sweep.objectives):
            at[full][trial.number] = {key: trial.final[key] for key in sweep.objectives}
        for level in levels[:-1] if evaluations.complete else ():
            metrics = _at_step(evaluations, trial.number, level, sweep.objectives)
            if metrics is not None:
                at[level][trial.number] = metrics
    reached = [level for level in levels if len(at[level]) >= ENOUGH]
    step = reached[-1] if reached else max(levels, key=lambda level: (len(at[level]), level))
    return Compared(step, tuple(at[step]), tuple(at[step].values()))


def _at_step(evaluations: Evaluations, number: int, step: int, objectives: Sequence[str]) -> Mapping[str, float] | None:
    """The objectives at a trial's last evaluation up to `step`; None where it has not come that far, or misses one."""
    rows = evaluations.rows(number)
    steps = evaluations.step[rows]
    if not len(steps) or steps[-1] < step or steps[0] > step:
        return None
    row = rows.start + int(np.searchsorted(steps, step, side="right")) - 1
    if any(key not in evaluations.metrics for key in objectives):
        return None
    metrics = {key: float(evaluations.metrics[key][row]) for key in objectives}
    return metrics if all(map(math.isfinite, metrics.values())) else None
