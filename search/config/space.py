"""The YAML space: parsed against TrialConfig, suggested through Optuna's define-by-run API, merged into a TrialConfig.

    loss.pixel.weight: [0, 1]                                  a list is a categorical choice
    optimizer.autoencoder.lr: {low: 1e-4, high: 1e-3, log: true}   a range; `step` for a grid of values
    loss.kl:                                                   a branch: its parameters exist only inside it
      one_of:
        fixed: {sigma: {low: 0.03, high: 0.6, log: true}}
        capacity: {gamma_sigma: 0.1, capacity_max: {low: 10, high: 300, log: true}, ramp: 0.5}

A plain value is fixed. Every name must lead to a field of TrialConfig and every value must fit it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import BaseTrial
from pydantic import BaseModel, TypeAdapter, ValidationError

from vaegan_core.config import TrialConfig, parse_trial
from vaegan_core.problems import problems_of

Problems = list[tuple[str, str]]
RANGE_KEYS = ("low", "high", "log", "step")


@dataclass(frozen=True)
class Fixed:
    name: str
    value: Any


@dataclass(frozen=True)
class Parameter:
    """One searched parameter with Optuna's distribution; bounds are inclusive."""

    name: str
    distribution: BaseDistribution


@dataclass(frozen=True)
class Branch:
    """A categorical choice of sub-spaces. `name` is the dotted name of the field that tells them apart."""

    name: str
    options: dict[str, tuple[Node, ...]]


Node = Fixed | Parameter | Branch


@dataclass(frozen=True)
class Space:
    nodes: tuple[Node, ...]

    def suggest(self, trial: BaseTrial) -> dict[str, Any]:
        """Suggested and fixed values by dotted name, for this trial's branches only."""
        values: dict[str, Any] = {}
        _suggest(self.nodes, trial, values)
        return values

    def parameters(self) -> dict[str, BaseDistribution]:
        """Every searched parameter, whatever its branch; a branch is a categorical parameter itself."""
        return dict(_parameters(self.nodes))

    def names(self) -> set[str]:
        """Of everything the space says, fixed or searched, whatever its branch."""
        return set(_names(self.nodes))

    def branches(self) -> list[str]:
        """Names of the parameters that choose a branch, at any depth."""
        return list(_branches(self.nodes))

    def size(self) -> float:
        """Number of different configurations; infinite when a range is continuous."""
        return _size(self.nodes)


def _suggest(nodes: tuple[Node, ...], trial: BaseTrial, values: dict[str, Any]) -> None:
    for node in nodes:
        match node:
            case Fixed(name, value):
                values[name] = value
            case Parameter(name, distribution):
                values[name] = _suggest_one(trial, name, distribution)
            case Branch(name, options):
                values[name] = trial.suggest_categorical(name, list(options))
                _suggest(options[values[name]], trial, values)


def _suggest_one(trial: BaseTrial, name: str, distribution: BaseDistribution) -> Any:
    match distribution:
        case CategoricalDistribution():
            return trial.suggest_categorical(name, distribution.choices)
        case IntDistribution():
            return trial.suggest_int(
                name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
            )
        case FloatDistribution():
            return trial.suggest_float(
                name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
            )
    raise AssertionError(distribution)


def _parameters(nodes: tuple[Node, ...]) -> Iterator[tuple[str, BaseDistribution]]:
    for node in nodes:
        match node:
            case Parameter(name, distribution):
                yield name, distribution
            case Branch(name, options):
                yield name, CategoricalDistribution(list(options))
                for inner in options.values():
                    yield from _parameters(inner)


def _names(nodes: tuple[Node, ...]) -> Iterator[str]:
    for node in nodes:
        yield node.name
        for inner in node.options.values() if isinstance(node, Branch) else ():
            yield from _names(inner)


def _branches(nodes: tuple[Node, ...]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, Branch):
            yield node.name
            for inner in node.options.values():
                yield from _branches(inner)


def values_of(distribution: BaseDistribution) -> Sequence[Any] | None:
    """Every value in order; None where a range is continuous."""
    match distribution:
        case CategoricalDistribution():
            return list(distribution.choices)
        case IntDistribution():
            return range(distribution.low, distribution.high + 1, distribution.step)
        case FloatDistribution() if distribution.step is not None:
            count = math.floor((distribution.high - distribution.low) / distribution.step + 1e-9) + 1
            return [min(distribution.low + index * distribution.step, distribution.high) for index in range(count)]
    return None


def _size(nodes: tuple[Node, ...]) -> float:
    size = 1.0
    for node in nodes:
        match node:
            case Parameter(_, distribution):
                values = values_of(distribution)
                size *= math.inf if values is None else len(values)
            case Branch(_, options):
                size *= sum(_size(inner) for inner in options.values())
    return size


# --- To a TrialConfig -------------------------------------------------------------------------------------------------


def build_trial(base: Mapping[str, Any], values: Mapping[str, Any], what: str = "trial") -> TrialConfig:
    """base ⊕ values, strictly validated: the only translation of a suggestion. Raises ConfigError.

    Where a branch's choice differs from the base's, the base's other keys of that branch do not apply.
    """
    data = copy.deepcopy(dict(base))
    for name in sorted(values, key=lambda name: not _is_tag(name)):
        *parents, last = name.split(".")
        node: Any = data
        for part in parents:
            if isinstance(node, dict) and node.get(part) is None:
                node[part] = {}
            node = node[part] if isinstance(node, dict) else None
        if not isinstance(node, dict):
            continue  # The base has no mapping here, which parse_trial refuses.
        if _is_tag(name) and node.get(last) != values[name]:
            node.clear()
        node[last] = values[name]
    return parse_trial(data, what)


def _is_tag(name: str) -> bool:
    """Whether the field at dotted `name` tells the members of a union apart."""
    parent, _, last = name.rpartition(".")
    return bool(parent) and _union(_annotation(parent))[0] == last


# --- Parsing ----------------------------------------------------------------------------------------------------------


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
        annotation = _annotation(name)
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
    tag, members = _union(annotation)
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
    if not _is_number(annotation):
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
    if step is not None and _is_integer(annotation) and step != int(step):
        problems.append((f"{path}.step", f"must be a whole number, as {name} is, but got {step}"))
    if (
        _all_fit(annotation, {f"{path}.{key}": raw[key] for key in ("low", "high")}, problems)
        and len(problems) == before
    ):
        if _is_integer(annotation):
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


# --- Looking names up in TrialConfig ----------------------------------------------------------------------------------


def _annotation(name: str) -> Any | None:
    """Type (with its constraints) of the field at a dotted name of TrialConfig; None where there is none.

    A name may lead through any member of a union.
    """
    candidates: list[Any] = [TrialConfig]
    for part in name.split("."):
        fields = [model.model_fields[part] for model in candidates if part in model.model_fields]
        if not fields:
            return None
        types = [Annotated[f.annotation, *f.metadata] if f.metadata else f.annotation for f in fields]
        annotation = reduce(or_, types)
        candidates = _models(annotation)
    return annotation


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models that a mapping at this annotation may be; empty where it must not be a mapping of keys."""
    plain = _plain(annotation)
    if isinstance(plain, type) and issubclass(plain, BaseModel):
        return [plain]
    if _is_union(plain):
        inner = [m for m in get_args(plain) if m is not type(None)]
        if len(inner) == 1:
            return _models(inner[0])
    return list(_union(annotation)[1].values())


def _plain(annotation: Any) -> Any:
    """Without `Annotated`."""
    return _plain(get_args(annotation)[0]) if get_origin(annotation) is Annotated else annotation


def _union(annotation: Any) -> tuple[str, dict[str, type[BaseModel]]]:
    """(tag field, {tag value: model}) of a union of models told apart by a literal field; else ("", {})."""
    plain = _plain(annotation)
    models = (
        [m for m in get_args(plain) if isinstance(m, type) and issubclass(m, BaseModel)] if _is_union(plain) else []
    )
    for field in models[0].model_fields if models else ():
        literals = [get_args(m.model_fields[field].annotation) for m in models if field in m.model_fields]
        if len(literals) == len(models) and all(len(literal) == 1 for literal in literals):
            return field, {literal[0]: model for literal, model in zip(literals, models, strict=True)}
    return "", {}


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, UnionType)


def _leaf_types(annotation: Any) -> set[Any]:
    plain = _plain(annotation)
    if _is_union(plain):
        return set().union(*(_leaf_types(member) for member in get_args(plain)))
    return {"literal"} if get_origin(plain) is Literal else {plain}


def _is_number(annotation: Any) -> bool:
    return bool({int, float} & _leaf_types(annotation))


def _is_integer(annotation: Any) -> bool:
    return float not in _leaf_types(annotation)
