"""The YAML of a space into nodes, with every problem."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import TypeAdapter, ValidationError

from search.config.space import Branch, Fixed, Node, Parameter, Problems, Space, _parameters
from search.config.trial_fields import _models, annotation_of, is_integer, is_number, union_of
from vaegan_core.problems import problems_of

RANGE_KEYS = ("low", "high", "log", "step")


def parse_space(raw: Mapping[str, Any], path: str = "space") -> tuple[Space, Problems]:
    """The space, and everything wrong with it as (YAML path, message) pairs; the space holds what was right."""
    problems: Problems = []
    nodes = tuple(_parse_nodes(raw, "", path, problems))
    seen: dict[str, BaseDistribution] = {}
    for name, distribution in _parameters(nodes):
        if seen.setdefault(name, distribution) != distribution:
            problems.append((f"{path}.{name}", "is searched twice over different values; both must be the same"))
    return Space(nodes), problems


def _parse_nodes(raw: Mapping[str, Any], prefix: str, path: str, problems: Problems) -> Iterator[Node]:
    for key, value in raw.items():
        name, where = f"{prefix}{key}", f"{path}.{key}"
        annotation = annotation_of(name)
        if annotation is None:
            problems.append((where, f"there is no such setting of a trial: {name}"))
        elif isinstance(value, Mapping) and "one_of" in value:
            yield from _parse_branch(name, value, where, annotation, problems)
        elif isinstance(value, Mapping) and _models(annotation):
            yield from _parse_nodes(value, f"{name}.", where, problems)
        elif isinstance(value, Mapping):
            yield from _parse_range(name, value, where, annotation, problems)
        elif isinstance(value, list):
            yield from _parse_choice(name, value, where, annotation, problems)
        elif _fits(annotation, value, where, problems):
            yield Fixed(name, value)


def _parse_branch(name: str, raw: Mapping[str, Any], path: str, annotation: Any, problems: Problems) -> Iterator[Node]:
    tag, members = union_of(annotation)
    if not tag:
        problems.append((path, f"{name} has no alternatives, so one_of does not apply; use a list or a range"))
        return
    problems += [(f"{path}.{key}", "is not a key beside one_of") for key in raw if key != "one_of"]
    if not isinstance(raw["one_of"], Mapping) or not raw["one_of"]:
        problems.append((f"{path}.one_of", f"must map one or more of {', '.join(members)} to their parameters"))
        return
    options: dict[str, tuple[Node, ...]] = {}
    for option, inner in raw["one_of"].items():
        where = f"{path}.one_of.{option}"
        if option not in members:
            problems.append((where, f"is not one of {', '.join(members)}"))
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
        yield Branch(f"{name}.{tag}", options)


def _parse_choice(name: str, values: list[Any], path: str, annotation: Any, problems: Problems) -> Iterator[Node]:
    if not values:
        problems.append((path, "must list at least one value"))
    elif any(value in values[:index] for index, value in enumerate(values)):
        problems.append((path, f"lists a value twice: {values}"))
    elif _all_fit(annotation, {f"{path}.{index}": value for index, value in enumerate(values)}, problems):
        yield Parameter(name, CategoricalDistribution(values))


def _parse_range(name: str, raw: Mapping[str, Any], path: str, annotation: Any, problems: Problems) -> Iterator[Node]:
    before = len(problems)
    if not is_number(annotation):
        problems.append((path, f"{name} is not a number, so a range does not fit it; list its values"))
        return
    rule = f"is not a key of a range; use {', '.join(RANGE_KEYS)}"
    problems += [(f"{path}.{key}", rule) for key in raw if key not in RANGE_KEYS]
    problems += [(f"{path}.{key}", "is required in a range") for key in ("low", "high") if key not in raw]
    for key in ("low", "high", "step"):
        if key in raw and not _is_finite(raw[key]):
            problems.append((f"{path}.{key}", f"must be a finite number, but got {raw[key]!r}"))
    if not isinstance(raw.get("log", False), bool):
        problems.append((f"{path}.log", f"must be true or false, but got {raw['log']!r}"))
    if len(problems) > before:
        return
    low, high, log, step = raw["low"], raw["high"], raw.get("log", False), raw.get("step")
    if not low < high:
        problems.append((path, f"low < high must hold, but got low {low} and high {high}"))
    if log and low <= 0:
        problems.append((f"{path}.low", f"must be > 0 with log: true, but got {low}"))
    if log and step is not None:
        problems.append((f"{path}.step", "cannot go with log: true; leave one of them out"))
    if step is not None and step <= 0:
        problems.append((f"{path}.step", f"must be > 0, but got {step}"))
    if step is not None and is_integer(annotation) and step != int(step):
        problems.append((f"{path}.step", f"must be a whole number, as {name} is, but got {step}"))
    if (
        _all_fit(annotation, {f"{path}.{key}": raw[key] for key in ("low", "high")}, problems)
        and len(problems) == before
    ):
        if is_integer(annotation):
            yield Parameter(name, IntDistribution(int(low), int(high), log=log, step=int(step or 1)))
        else:
            yield Parameter(name, FloatDistribution(float(low), float(high), log=log, step=step))


def _fits(annotation: Any, value: Any, path: str, problems: Problems) -> bool:
    try:
        TypeAdapter(annotation).validate_python(value)
    except ValidationError as error:
        problems += [(path, message) for _, message in problems_of(error, value)[:1]]
        return False
    return True


def _all_fit(annotation: Any, values: Mapping[str, Any], problems: Problems) -> bool:
    """Whether every value fits; `values` by YAML path."""
    fits = [_fits(annotation, value, path, problems) for path, value in values.items()]
    return all(fits)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
