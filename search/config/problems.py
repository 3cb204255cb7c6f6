"""What is wrong between the parts of a sweep, each right by itself."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import optuna

from search.config.space import Branch, Node, Problems, Space, build_trial, contains, values_of
from search.config.strategies import mutable_parameters
from vaegan_core.problems import ConfigError

COMBINATIONS_TRIED = 200
FIXED_SETTINGS = ("frames", "train.steps")


def problems_of_base(base: Mapping[str, Any], space: Space, reported: Sequence[str]) -> Problems:
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


def problems_of_points(points: Any, space: Space, reported: Sequence[str]) -> Problems:
    if not isinstance(points, dict):
        return []
    parameters = space.parameters()
    problems: Problems = []
    for point, values in points.items():
        for name, value in values.items() if isinstance(values, dict) else ():
            where = f"points.{point}.{name}"
            if name in parameters and not contains(parameters[name], value):
                problems.append((where, f"lies outside the space: {value!r}"))
            elif name in parameters and name not in _reachable(space.nodes, values):
                problems.append((where, "belongs to another branch than the point chooses"))
            elif name not in parameters and not any(_leads_to(f"space.{name}", path) for path in reported):
                problems.append((where, "is not a parameter of the space"))
    return problems


def problems_of_points_alone(data: Mapping[str, Any], reported: Sequence[str]) -> Problems:
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


def problems_of_scheduler(scheduler: Any, base: Any) -> Problems:
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


def problems_of_grid(data: Mapping[str, Any], space: Space) -> Problems:
    """A grid needs a number of values for every parameter."""
    sampler = data.get("sampler")
    if not isinstance(sampler, dict) or sampler.get("name") != "grid":
        return []
    return [
        (f"space.{name}", "has no end of values, so there is no grid; list them, or give the range a step")
        for name, distribution in space.parameters().items()
        if values_of(distribution) is None
    ]


def problems_of_population(data: Mapping[str, Any], space: Space, reported: Sequence[str]) -> Problems:
    """Population based training needs something to change; what the space is `reported` for may be just that."""
    scheduler = data.get("scheduler")
    if not isinstance(scheduler, dict) or scheduler.get("name") != "pbt" or mutable_parameters(space) or reported:
        return []
    return [("scheduler.name", "pbt needs a parameter of loss or optimizer in the space that may change")]
