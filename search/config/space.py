"""What a sweep searches: the nodes of a space, the values that one trial takes from it, and the trial they make."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from random import Random
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from search.config.distributions import Sureness, at_quantile, contains, count_values
from search.config.trial_fields import annotation_of, union_of
from vaegan_core.config.trial import TrialConfig, parse_trial
from vaegan_core.problems import Config

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

COMBINATIONS_TRIED = 200
"""Random combinations of a space's values that stand for all of them: in checks, and to find the largest trial."""

Choose = Callable[[str, BaseDistribution], Any]
"""Gives a value to the parameter of this name and distribution."""


@dataclass(frozen=True)
class Fixed:
    """A setting that has the same value in every trial of its branch."""

    name: str
    value: Any


class Prior(Config):
    """Where a parameter's good values are believed to be, before the first trial."""

    value: Any
    sure: Sureness


@dataclass(frozen=True)
class Parameter:
    """One searched parameter with Optuna's distribution; bounds are inclusive."""

    name: str
    distribution: BaseDistribution
    prior: Prior | None = None


@dataclass(frozen=True)
class Branch:
    """A categorical choice of sub-spaces. `name` is the dotted name of the field that tells them apart."""

    name: str
    options: dict[str, tuple[Node, ...]]
    prior: Prior | None = None

    @property
    def distribution(self) -> CategoricalDistribution:
        return CategoricalDistribution(list(self.options))


Node = Fixed | Parameter | Branch


@dataclass(frozen=True)
class Space:
    """The searched settings: parameters, and branches with parameters of their own."""

    nodes: tuple[Node, ...]

    def walk(self) -> Iterator[Node]:
        """Every node at any depth, a branch before the nodes of its options."""
        return _walk(self.nodes)

    def parameters(self) -> dict[str, BaseDistribution]:
        """Every searched parameter, whatever its branch; a branch is a categorical parameter itself."""
        return {node.name: node.distribution for node in self.walk() if not isinstance(node, Fixed)}

    def priors(self) -> dict[str, Prior]:
        """The priors of the parameters that have one."""
        return {node.name: node.prior for node in self.walk() if not isinstance(node, Fixed) and node.prior}

    def names(self) -> list[str]:
        """Names of all settings that the space gives, fixed or searched, whatever their branch; each once."""
        return list(dict.fromkeys(node.name for node in self.walk()))

    def branches(self) -> list[str]:
        """Names of the parameters that choose a branch, at any depth."""
        return [node.name for node in self.walk() if isinstance(node, Branch)]

    def size(self) -> float:
        """Number of different configurations; infinite when a range is continuous."""
        return _size(self.nodes)

    def assign(self, choose: Choose) -> dict[str, Any]:
        """Values by dotted name: the fixed ones, and `choose`'s for every parameter of the branches that it chooses."""
        return dict(_assign(self.nodes, choose))

    def suggest(self, trial: BaseTrial) -> dict[str, Any]:
        """Values by dotted name, suggested through Optuna's define-by-run API."""
        return self.assign(lambda name, distribution: _suggest(trial, name, distribution))

    def combinations(self, given: Mapping[str, Any] = MappingProxyType({})) -> Iterator[dict[str, Any]]:
        """COMBINATIONS_TRIED random assignments, the same in every call; one where nothing is searched.

        Parameters have the `given` values where there are some.
        """
        random = Random(0)
        for _ in range(COMBINATIONS_TRIED if self.parameters() else 1):
            yield self.assign(_draws(random, given))


def _walk(nodes: tuple[Node, ...]) -> Iterator[Node]:
    for node in nodes:
        yield node
        for inner in node.options.values() if isinstance(node, Branch) else ():
            yield from _walk(inner)


def _assign(nodes: tuple[Node, ...], choose: Choose) -> Iterator[tuple[str, Any]]:
    for node in nodes:
        value = node.value if isinstance(node, Fixed) else choose(node.name, node.distribution)
        yield node.name, value
        if isinstance(node, Branch):
            yield from _assign(node.options[value], choose)


def _draws(random: Random, given: Mapping[str, Any]) -> Choose:
    """Random values, one for each parameter however often the space names it."""
    drawn = dict(given)

    def draw(name: str, distribution: BaseDistribution) -> Any:
        if name not in drawn:
            drawn[name] = at_quantile(distribution, random.random())
        return drawn[name]

    return draw


def _suggest(trial: BaseTrial, name: str, distribution: BaseDistribution) -> Any:
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


def _size(nodes: tuple[Node, ...]) -> float:
    size = 1.0
    for node in nodes:
        match node:
            case Parameter(_, distribution, _):
                size *= count_values(distribution)
            case Branch(_, options, _):
                size *= sum(_size(inner) for inner in options.values())
    return size


def lies_in(space: Space, values: Mapping[str, Any]) -> bool:
    """Whether `values`, and no others, are those of the searched parameters at one point of the space."""
    parameters = space.parameters()
    if not all(name in parameters and contains(parameters[name], value) for name, value in values.items()):
        return False
    asked: set[str] = set()

    def choose(name: str, _: BaseDistribution) -> Any:
        asked.add(name)
        return values[name]

    try:
        space.assign(choose)
    except KeyError:
        return False
    return asked == set(values)


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
        node[last] = copy.deepcopy(values[name])
    return parse_trial(data, what)


@cache
def _is_tag(name: str) -> bool:
    """Whether the field at dotted `name` tells the members of a union apart."""
    parent, _, last = name.rpartition(".")
    return bool(parent) and union_of(annotation_of(parent))[0] == last
