"""Optuna's distributions: which values each has, how many, in words, and whether a value is one of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution


def count_values(distribution: BaseDistribution) -> float:
    """Number of values; infinite where a range is continuous."""
    match distribution:
        case CategoricalDistribution():
            return len(distribution.choices)
        case IntDistribution():
            return len(range(distribution.low, distribution.high + 1, distribution.step))
        case FloatDistribution() if distribution.step is not None:
            return math.floor((distribution.high - distribution.low) / distribution.step + 1e-9) + 1
    return math.inf


def value_at(distribution: BaseDistribution, index: int) -> Any:
    """Value number `index`, from 0 and in order, of a distribution that has a finite number of them."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[index]
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    assert distribution.step is not None
    return min(distribution.low + index * distribution.step, distribution.high)


def values_of(distribution: BaseDistribution) -> Sequence[Any] | None:
    """Every value in order; None where a range is continuous."""
    count = count_values(distribution)
    return None if math.isinf(count) else [value_at(distribution, index) for index in range(int(count))]


def at_quantile(distribution: BaseDistribution, u: float) -> Any:
    """The value at u in [0, 1) of a distribution's range, spread as a random sampler would spread it."""
    if isinstance(distribution, IntDistribution | FloatDistribution) and distribution.log:
        whole = isinstance(distribution, IntDistribution)
        margin = 0.5 if whole else 0.0  # a whole number stands for everything rounded to it
        low, high = math.log(distribution.low - margin), math.log(distribution.high + margin)
        value = math.exp(low + u * (high - low))
        return min(max(round(value) if whole else value, distribution.low), distribution.high)
    count = count_values(distribution)
    if not math.isinf(count):
        return value_at(distribution, int(u * count))
    assert isinstance(distribution, FloatDistribution)
    return distribution.low + u * (distribution.high - distribution.low)


def in_words(distribution: BaseDistribution) -> str:
    """Its values, for people."""
    if isinstance(distribution, CategoricalDistribution):
        return "one of " + ", ".join(str(choice) for choice in distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    whole = isinstance(distribution, IntDistribution) and distribution.step == 1
    steps = "" if distribution.step is None or whole else f" in steps of {distribution.step:g}"
    return f"{distribution.low:g} to {distribution.high:g}{' on a log scale' if distribution.log else steps}"


def contains(distribution: BaseDistribution, value: Any) -> bool:
    """Whether `value` is one of the distribution's. `_contains` is private to Optuna (5.0)."""
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except (ValueError, TypeError):
        return False
