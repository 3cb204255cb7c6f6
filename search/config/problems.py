"""What must hold between the parts of a sweep and its space.

Besides fields of SweepConfig, the rules here need
- `base.NAME`: a setting that the base itself gives, if it is valid (the base may be partial: the space gives the rest),
- `whole space`: the Space, if everything in it is right,
- `readable space`: the Space of what is right in it, and `unreadable settings`: the names of what is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from search.config.distributions import contains, count_values
from search.config.questions import QuestionConfig
from search.config.space import Branch, Fixed, Node, Space, build_trial
from search.config.space_parser import parse_space
from search.config.strategies import IMMUTABLE, AshaConfig, MedianConfig, PbtConfig, SamplerConfig, mutable_parameters
from search.config.sweep_config import BudgetConfig, Scheduler
from search.config.trial_fields import annotation_of, union_of
from vaegan_core.data.frames import MANIFEST_FILE
from vaegan_core.problems import ConfigError, Problem, Rule, rule
from vaegan_core.spelling import right_key

MOST_PROBLEMS = 20
"""Problems of combinations after which no further ones are looked for."""
POINT_COMBINATIONS = 20
"""Ways to fill in what a point leaves open that are tried."""

RULES: list[Rule] = []
FILES: list[Rule] = []
"""Rules of a sweep that is about to run here: about files that its base names."""

Points = dict[str, dict[str, Any]]


def parts_of_base(base: Any, rules: Iterable[Rule]) -> dict[str, Any]:
    """The valid ones among the settings of the base that `rules` need."""
    parts: dict[str, Any] = {}
    for need in {need for each in rules for need in each.needs if need.startswith("base.")}:
        name = need.removeprefix("base.")
        annotation: Any = annotation_of(name)
        try:
            parts[need] = TypeAdapter(annotation).validate_python(setting(base, name))
        except ValidationError:
            continue
    return parts


def setting(base: Any, name: str) -> Any:
    """Value at a dotted name; None where there is none."""
    for part in name.split("."):
        base = base.get(part) if isinstance(base, Mapping) else None
    return base


def parts_of_space(raw: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """What rules need of the space, and the problems found in it."""
    space, problems = parse_space(raw)
    names = [re.sub(r"\.one_of\.[^.]+", "", path).removeprefix("space.") for path, _ in problems]
    parts = {"readable space": space, "unreadable settings": names}
    return parts | ({} if problems else {"whole space": space}), problems


# --- The base and the space -------------------------------------------------------------------------------------------


@rule(RULES, "readable space")
def _settings_are_given_once(space: Space) -> Iterator[Problem]:
    """In dots and nested, one of them to no effect; a branch may give another value than the space around it."""
    seen: dict[str, Node] = {}
    for node in space.nodes:
        other = seen.setdefault(node.name, node)
        if other != node and (isinstance(node, Fixed) or isinstance(other, Fixed)):
            yield f"space.{node.name}", "is given twice, with different values; remove one of them"


@rule(RULES, "readable space")
def _space_keeps_trials_comparable(space: Space) -> Iterator[Problem]:
    yield from problems_of_comparison("space", space.names())


def problems_of_comparison(path: str, names: Iterable[str]) -> Iterator[Problem]:
    """Settings among `names`, given at `path`, that must be the same in all trials."""
    for name in names:
        if name in ("frames", "train.steps", "evaluate") or name.startswith("evaluate."):
            yield f"{path}.{name}", f"must be the same in all trials, so that they can be compared; set base.{name}"
        elif name == "train":
            yield (
                f"{path}.{name}",
                "gives train.steps too, which must be the same in all trials, so that they can be compared; name what "
                "differs below it, such as train.batch_size",
            )


@rule(RULES, "base", "readable space", "unreadable settings")
def _combinations_are_trials(base: Mapping[str, Any], space: Space, unreadable: list[str]) -> Iterator[Problem]:
    """Errors of the base itself, and of values that cannot go together: one for each setting."""
    problems: dict[str, str] = {}
    for values in space.combinations():
        for path, message in _problems_of_trial(base, values):
            if not _is_unreadable(path, unreadable):
                where = _written_at(path, values, space)
                choice = _choice_above(path, values) if where.startswith("base.") else ""
                problems.setdefault(where, f"{message}{choice}")
        if len(problems) > MOST_PROBLEMS:
            break
    yield from problems.items()


def _problems_of_trial(base: Mapping[str, Any], values: Mapping[str, Any]) -> list[Problem]:
    try:
        build_trial(base, values)
    except ConfigError as error:
        return error.problems
    return []


def _written_at(path: str, values: Mapping[str, Any], space: Space) -> str:
    """Where the sweep's YAML gives a trial's `path`: in the space, within the branch chosen, or in the base."""
    for node in space.nodes:
        branch = node.name.rpartition(".")[0]
        if isinstance(node, Branch) and _leads_to(branch, path):
            return f"space.{branch}.one_of.{values[node.name]}{path.removeprefix(branch)}"
    return f"space.{path}" if path in values else f"base.{path}".rstrip(".")


def _choice_above(path: str, values: Mapping[str, Any]) -> str:
    """What makes the base's `path` wrong if the space, without a branch, chooses the kind of what lies around it."""
    for name, value in values.items():
        parent, _, tag = name.rpartition(".")
        if tag == union_of(annotation_of(parent))[0] and _leads_to(parent, path):
            branches = f"{parent}: {{one_of: {{{value}: {{...}}, ...}}}}"
            return f", where space.{name} is {value}; give each its own settings by `{branches}` in the space"
    return ""


def _is_unreadable(path: str, unreadable: list[str]) -> bool:
    return any(_leads_to(path, name) or _leads_to(name, path) for name in unreadable)


def _leads_to(start: str, path: str) -> bool:
    return path == start or path.startswith(f"{start}.")


# --- Points -----------------------------------------------------------------------------------------------------------


@rule(RULES, "points", "readable space", "unreadable settings")
def _points_lie_in_the_space(points: Points, space: Space, unreadable: list[str]) -> Iterator[Problem]:
    if not space.nodes and not unreadable:
        return
    parameters = space.parameters()
    for point, values in points.items():
        certain = _certain(space.nodes, values)
        for name, value in values.items():
            where = f"points.{point}.{name}"
            if name not in parameters:
                if not _is_unreadable(name, unreadable):
                    yield where, f"is not a parameter of the space{right_key(name, parameters)}"
            elif not contains(parameters[name], value):
                yield where, f"lies outside the space: {value!r}"
            elif name not in certain:
                left_open = next((each for each in _branches_around(space.nodes, name) if each not in values), None)
                if left_open is None:
                    yield where, "belongs to another branch than the point chooses"
                else:
                    yield where, f"belongs to some options of {left_open}, so that the point must choose one"


@rule(RULES, "base", "points", "readable space", "unreadable settings")
def _points_can_be_built(
    base: Mapping[str, Any], points: Points, space: Space, unreadable: list[str]
) -> Iterator[Problem]:
    """A point that is impossible whatever the sampler fills in."""
    if not space.nodes or unreadable:
        return

    def found(given: Mapping[str, Any]) -> list[list[Problem]]:
        whole = islice(space.combinations(given), POINT_COMBINATIONS)
        return [_problems_of_trial(base, values) for values in whole]

    of_space, parameters = {problem for problems in found({}) for problem in problems}, space.parameters()
    for point, values in points.items():
        lies_in_space = all(name in parameters and contains(parameters[name], value) for name, value in values.items())
        if lies_in_space and all(of_point := found(values)):
            own = (problem for problem in of_point[0] if problem not in of_space)
            yield from ((f"points.{point}.{path}".rstrip("."), message) for path, message in own)


def _certain(nodes: Iterable[Node], values: Mapping[str, Any]) -> set[str]:
    """Names that all trials of a point with these `values` have.

    Of a branch, those of the option that it chooses; those that all options have where it chooses none; those of any
    where its choice is not there, which is an error of its own.
    """
    names: set[str] = set()
    for node in nodes:
        names.add(node.name)
        if isinstance(node, Branch):
            chosen = [option for key, option in node.options.items() if key == values.get(node.name)]
            of_options = [_certain(option, values) for option in chosen or node.options.values()]
            names |= set.union(*of_options) if node.name in values else set.intersection(*of_options)
    return names


def _branches_around(nodes: Iterable[Node], name: str) -> Iterator[str]:
    """Names of the branches with options that have this setting, the outermost first."""
    for node in nodes:
        if isinstance(node, Branch):
            inside = [inner for option in node.options.values() for inner in option]
            around = list(_branches_around(inside, name))
            if around or any(inner.name == name for inner in inside):
                yield node.name
                yield from around


NO_TRIALS = ("points", "must name at least one configuration where the space searches nothing")


@rule(RULES, "points", "whole space", "questions")
def _a_sweep_has_trials(points: Points, space: Space, questions: Mapping[str, QuestionConfig]) -> Iterator[Problem]:
    if not questions and not space.parameters() and not points:
        yield NO_TRIALS


@rule(RULES, "points", "whole space", "questions", "budget")
def _trials_beside_questions_are_of_something(
    points: Points, space: Space, questions: Mapping[str, QuestionConfig], budget: BudgetConfig
) -> Iterator[Problem]:
    if questions and budget.trials and not space.parameters() and not points:
        yield NO_TRIALS


@rule(RULES, "budget", "points", "whole space")
def _points_alone_are_enough(budget: BudgetConfig, points: Points, space: Space) -> Iterator[Problem]:
    if not space.nodes and 0 < len(points) < budget.trials:
        yield "budget.trials", f"must be at most {len(points)}, the number of points, but got {budget.trials}"


@rule(RULES, "base", "points", "whole space")
def _points_alone_are_trials(base: Mapping[str, Any], points: Points, space: Space) -> Iterator[Problem]:
    if space.nodes:
        return
    of_base = {path for path, _ in _problems_of_trial(base, {})}
    for point, values in points.items():
        yield from problems_of_comparison(f"points.{point}", values)
        for path, message in _problems_of_trial(base, values):
            if path not in of_base:
                yield f"points.{point}.{path}".rstrip("."), message


# --- Strategies -------------------------------------------------------------------------------------------------------


@rule(RULES, "sampler", "readable space")
def _grid_is_finite(sampler: SamplerConfig, space: Space) -> Iterator[Problem]:
    for name, distribution in space.parameters().items() if sampler.name == "grid" else ():
        if count_values(distribution) == float("inf"):
            yield (
                f"space.{name}",
                "has infinitely many values, so there is no grid; list them, or give the range a step",
            )


@rule(RULES, "scheduler", "whole space")
def _population_can_change(scheduler: Scheduler, space: Space) -> Iterator[Problem]:
    if isinstance(scheduler, PbtConfig) and not mutable_parameters(space):
        yield (
            "scheduler.name",
            "pbt needs a parameter of loss or optimizer in the space that may change, which branches and "
            f"{', '.join(IMMUTABLE)} may not; add one, or choose another scheduler",
        )


@rule(RULES, "scheduler", "base.train.steps")
def _scheduler_acts_before_the_end(scheduler: Scheduler, steps: int) -> Iterator[Problem]:
    match scheduler:
        case AshaConfig(min_steps=first) | MedianConfig(min_steps=first):
            key = "min_steps"
        case PbtConfig(every=first):
            key = "every"
        case _:
            return
    if first >= steps:
        yield f"scheduler.{key}", f"must be less than base.train.steps, but got {first} and {steps}"


@rule(RULES, "scheduler", "base.evaluate.every")
def _population_meets_at_evaluations(scheduler: Scheduler, every: int) -> Iterator[Problem]:
    if isinstance(scheduler, PbtConfig) and scheduler.every % every:
        yield (
            "scheduler.every",
            f"must be a multiple of base.evaluate.every, but got {scheduler.every} and {every}",
        )


# --- Files --------------------------------------------------------------------------------------------------------


def missing_frames(frames: str, comments: str, key: str) -> Iterator[Problem]:
    """What is wrong with a path of a frame set where there is none, with the command that the `comments` of the file
    name for it."""
    if (Path(frames) / MANIFEST_FILE).is_file():
        return
    commands = re.findall(r"^# +(vaegan +data .*?)(?:  .*)?$", comments, re.MULTILINE)
    made = [command for command in commands if f"-o {frames} " in f"{command} "]
    how = f"make it with: {made[0]}" if made else "make one of the size that this file is for, with vaegan data"
    yield key, f"no frame set at {frames}; {how}"


@rule(FILES, "base.frames", "comments")
def _frames_exist(frames: str, comments: str) -> Iterator[Problem]:
    return missing_frames(frames, comments, "base.frames")


@rule(FILES, "base.evaluate.inception_weights")
def _inception_weights_exist(weights: str | None) -> Iterator[Problem]:
    if weights is not None and not Path(weights).is_file():
        yield (
            "base.evaluate.inception_weights",
            f"no file at {weights}; download it (search/sweeps/README.md says from where) or remove the key",
        )
