"""The YAML of a space into nodes, with every problem.

    loss.pixel.weight: [0, 1]                                      a list is a categorical choice
    optimizer.autoencoder.lr: {low: 1e-4, high: 1e-3, log: true}   a range; `step` for a grid of values
    loss.kl:                                                       a branch: its parameters exist only inside it
      one_of:
        fixed: {sigma: {low: 0.03, high: 0.6, log: true}}
        capacity: {gamma_sigma: 0.1, capacity_max: {low: 10, high: 300, log: true}, ramp: 0.5}

Each may carry what is believed about it: {low: 1e-4, high: 1e-3, log: true, prior: {value: 3e-4, sure: medium}},
{choices: [0, 1], prior: {value: 1, sure: high}}, {one_of: …, prior: {value: fixed, sure: low}}.

A plain value is fixed. Every name must lead to a field of TrialConfig and every value must fit it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import TypeAdapter, ValidationError

from search.config.distributions import contains, in_words
from search.config.space import Branch, Fixed, Node, Parameter, Prior, Space
from search.config.trial_fields import annotation_of, is_integer, is_number, models_of, union_of
from vaegan_core.config.trial import TrialConfig
from vaegan_core.problems import Problem, key_names, problems_of, takes_number_not_bool
from vaegan_core.spelling import did_you_mean, right_key

TOLERANCE = 1e-9
"""How far from a whole number a number of steps may lie, by rounding."""
RANGE_KEYS = ("low", "high", "log", "step")
CHOICES, PRIOR = "choices", "prior"


def parse_space(raw: Mapping[str, Any], path: str = "space") -> tuple[Space, list[Problem]]:
    """The space, and everything wrong with it by YAML path; the space holds what was right."""
    problems: list[Problem] = []
    space = Space(tuple(_parse_nodes(raw, "", path, problems)))
    seen: dict[str, BaseDistribution] = {}
    for node in space.walk():
        if not isinstance(node, Fixed) and seen.setdefault(node.name, node.distribution) != node.distribution:
            problems.append((f"{path}.{node.name}", "is searched twice over different values; both must be the same"))
    return space, problems


def _parse_nodes(raw: Mapping[str, Any], prefix: str, path: str, problems: list[Problem]) -> Iterator[Node]:
    for key, value in raw.items():
        name, where = f"{prefix}{key}", f"{path}.{key}"
        annotation = annotation_of(name)
        if annotation is None:
            meant = right_key(name, key_names(TrialConfig))
            problems.append((where, f"there is no such setting of a trial: {name}{meant}"))
        elif isinstance(value, Mapping) and "one_of" in value:
            yield from _parse_branch(name, value, where, annotation, problems)
        elif isinstance(value, Mapping) and models_of(annotation):
            yield from _parse_nodes(value, f"{name}.", where, problems)
        elif isinstance(value, Mapping):
            yield from _parse_searched(name, value, where, annotation, problems)
        elif isinstance(value, list):
            listed: list[Problem] = []
            yield from _parse_searched(name, {CHOICES: value}, where, annotation, listed)
            problems += [(key.replace(f"{where}.{CHOICES}.", f"{where}."), message) for key, message in listed]
        elif message := _misfit(annotation, value):
            problems.append((where, message))
        else:
            yield Fixed(name, value)


def _parse_searched(
    name: str, raw: Mapping[str, Any], path: str, annotation: Any, problems: list[Problem]
) -> Iterator[Node]:
    """A range, or a choice, with or without a prior."""
    given = {key: value for key, value in raw.items() if key != PRIOR}
    wrong = [*(_problems_of_choice if CHOICES in raw else _problems_of_range)(name, given, annotation)]
    if not wrong:
        distribution = (
            CategoricalDistribution(given[CHOICES]) if CHOICES in raw else _range(**given, whole=is_integer(annotation))
        )
        prior = _parse_prior(raw[PRIOR], distribution, wrong) if PRIOR in raw else None
        yield Parameter(name, distribution, prior)
    problems += _below(path, wrong)


def _parse_prior(raw: Any, distribution: BaseDistribution, problems: list[Problem]) -> Prior | None:
    """A prior of a parameter with these values; what is wrong with it goes to `problems`, by key of the parameter."""
    try:
        prior = Prior.model_validate(raw)
    except ValidationError as error:
        problems += _below(PRIOR, problems_of(error, raw))
        return None
    if not contains(distribution, prior.value):
        problems.append((f"{PRIOR}.value", f"must be {in_words(distribution)}, but got {prior.value!r}"))
    return prior


def _below(path: str, problems: list[Problem]) -> list[Problem]:
    return [(f"{path}.{key}" if key else path, message) for key, message in problems]


def _misfit(annotation: Any, value: Any) -> str:
    """What is wrong with a value of this type; empty where it fits."""
    if isinstance(value, bool) and takes_number_not_bool(annotation):
        return f"must be a number, but got {value!r}"
    try:
        TypeAdapter(annotation).validate_python(value)
    except ValidationError as error:
        return problems_of(error, value)[0][1]
    return ""


# --- Branches ---------------------------------------------------------------------------------------------------------


def _parse_branch(
    name: str, raw: Mapping[str, Any], path: str, annotation: Any, problems: list[Problem]
) -> Iterator[Node]:
    tag, members = union_of(annotation)
    if not tag:
        problems.append((path, f"{name} has no alternatives, so one_of does not apply; use a list or a range"))
        return
    problems += [(f"{path}.{key}", "is not a key beside one_of") for key in raw if key not in ("one_of", PRIOR)]
    if not isinstance(raw["one_of"], Mapping) or not raw["one_of"]:
        problems.append((f"{path}.one_of", f"must map one or more of {', '.join(members)} to their parameters"))
        return
    options: dict[str, tuple[Node, ...]] = {}
    for option, inner in raw["one_of"].items():
        where = f"{path}.one_of.{option}"
        if option not in members:
            problems.append((where, f"is not one of {', '.join(members)}{did_you_mean(option, members)}"))
        elif not isinstance(inner or {}, Mapping):
            problems.append((where, f"must map parameters to values, but got {inner!r}"))
        else:
            options[option] = tuple(_parse_nodes(inner or {}, f"{name}.", where, problems))
            allowed = {f"{name}.{field}" for field in members[option].model_fields if field != tag}
            problems += [
                (f"{where}.{node.name.removeprefix(f'{name}.')}", f"is not a setting of {name} {option}")
                for node in options[option]
                if node.name not in allowed
            ]
    if options:
        branch, wrong = Branch(f"{name}.{tag}", options), list[Problem]()
        yield replace(branch, prior=_parse_prior(raw[PRIOR], branch.distribution, wrong) if PRIOR in raw else None)
        problems += _below(path, wrong)


# --- Lists ------------------------------------------------------------------------------------------------------------


def _problems_of_choice(name: str, raw: Mapping[str, Any], annotation: Any) -> Iterator[Problem]:  # noqa: ARG001
    """Problems by key and position in the list; those of the whole list at ""."""
    values = raw[CHOICES]
    for key in raw:
        if key != CHOICES:
            yield str(key), f"is not a key beside {CHOICES}"
    if not isinstance(values, list) or not values:
        yield "", "must list at least one value"
    elif any(value in values[:index] for index, value in enumerate(values)):
        yield "", f"lists a value twice: {values}"
    else:
        for index, value in enumerate(values):
            if message := _misfit(annotation, value):
                yield f"{CHOICES}.{index}", message


# --- Ranges -----------------------------------------------------------------------------------------------------------


def _problems_of_range(name: str, raw: Mapping[str, Any], annotation: Any) -> Iterator[Problem]:
    """Problems by key of the range; those of the whole range at ""."""
    if not is_number(annotation):
        yield "", f"{name} is not a number, so a range does not fit it; list its values"
        return
    of_keys = [*_problems_of_keys(raw)]
    yield from of_keys or _problems_of_bounds(name, annotation, **raw)


def _problems_of_keys(raw: Mapping[str, Any]) -> Iterator[Problem]:
    for key in raw:
        if key not in RANGE_KEYS:
            known = (*RANGE_KEYS, PRIOR)
            yield str(key), f"is not a key of a range; use {', '.join(known)}{did_you_mean(key, known)}"
    for key in ("low", "high"):
        if key not in raw:
            yield key, "is required in a range"
    for key in ("low", "high", "step"):
        if key in raw and not _is_finite(raw[key]):
            yield key, f"must be a finite number, but got {raw[key]!r}"
    if not isinstance(raw.get("log", False), bool):
        yield "log", f"must be true or false, but got {raw['log']!r}"


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _problems_of_bounds(
    name: str, annotation: Any, low: float, high: float, log: bool = False, step: float | None = None
) -> Iterator[Problem]:
    if not low < high:
        yield "", f"low < high must hold, but got low {low} and high {high}"
    if log and low <= 0:
        yield "low", f"must be > 0 with log: true, but got {low}"
    if log and step is not None:
        yield "step", "cannot go with log: true; leave one of them out"
    if step is not None and (step <= 0 or (low < high and (high - low) / step < 1 - TOLERANCE)):
        yield "step", f"must be > 0 and at most high - low, but got {step}"
    if step is not None and is_integer(annotation) and step != int(step):
        yield "step", f"must be a whole number, as {name} is, but got {step}"
    for key, bound in (("low", low), ("high", high)):
        if message := _misfit(annotation, bound):
            yield key, message


def _range(low: float, high: float, whole: bool, log: bool = False, step: float | None = None) -> BaseDistribution:
    if whole:
        return IntDistribution(int(low), int(high - (high - low) % int(step or 1)), log=log, step=int(step or 1))
    if step is not None:
        count = math.floor((high - low) / step + TOLERANCE)
        reached = low + step * count  # or Optuna cuts the range, with a warning
        high = reached if high - reached > TOLERANCE * step else high
    return FloatDistribution(float(low), float(high), log=log, step=step)
