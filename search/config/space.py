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
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import BaseTrial, FixedTrial

from search.config.trial_fields import annotation_of, union_of
from vaegan_core.config import TrialConfig, parse_trial

Problems = list[tuple[str, str]]


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
    return bool(parent) and union_of(annotation_of(parent))[0] == last


# --- Parsing ----------------------------------------------------------------------------------------------------------


# --- Looking names up in TrialConfig ----------------------------------------------------------------------------------


def lies_in(space: Space, values: Mapping[str, Any]) -> bool:
    """Whether a point with these `values`, and no others, is one of the space."""
    try:
        suggested = space.suggest(FixedTrial(dict(values)))
    except ValueError:
        return False
    parameters = space.parameters()
    return {name for name in suggested if name in parameters} == set(values) and all(
        contains(parameters[name], value) for name, value in values.items()
    )


def contains(distribution: optuna.distributions.BaseDistribution, value: Any) -> bool:
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except (ValueError, TypeError):
        return False
