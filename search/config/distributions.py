"""Optuna's distributions: which values each has, how many, in words, and whether a value is one of them."""

from __future__ import annotations

import math
from typing import Any, Literal

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from scipy.special import ndtr, ndtri

Sureness = Literal["low", "medium", "high"]
WIDTHS: dict[Sureness, float] = {"low": 0.3, "medium": 0.15, "high": 0.05}
"""Standard deviation of a belief about a range, as a share of the range."""
SHARES: dict[Sureness, float] = {"low": 0.25, "medium": 0.5, "high": 0.8}
"""Share of the chances that a belief gives to one choice, before the rest is divided evenly."""


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


def index_of(distribution: BaseDistribution, value: Any) -> int:
    """The index at which `value_at` gives the value that is nearest."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices.index(value)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    assert distribution.step is not None
    index = round((float(value) - distribution.low) / distribution.step)
    return min(max(index, 0), int(count_values(distribution)) - 1)


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


def quantile_of(distribution: BaseDistribution, value: Any) -> float:
    """The middle of the u in [0, 1] at which `at_quantile` gives this value."""
    if isinstance(distribution, IntDistribution | FloatDistribution) and distribution.log:
        margin = 0.5 if isinstance(distribution, IntDistribution) else 0.0
        low, high = math.log(distribution.low - margin), math.log(distribution.high + margin)
        return float((math.log(value) - low) / (high - low))
    count = count_values(distribution)
    if not math.isinf(count):
        return (index_of(distribution, value) + 0.5) / count
    assert isinstance(distribution, FloatDistribution)
    return float((value - distribution.low) / (distribution.high - distribution.low))


def near(distribution: BaseDistribution, value: Any, sure: Sureness, u: float) -> Any:
    """The value at u in [0, 1) of a belief that `value` is good.

    A range: a normal distribution around it on the range's own scale, truncated. A choice: it gets SHARES of all
    chances before the rest is divided evenly.
    """
    if isinstance(distribution, CategoricalDistribution):
        others = [choice for choice in distribution.choices if choice != value]
        chance = SHARES[sure] + (1 - SHARES[sure]) / len(distribution.choices)
        return value if u < chance or not others else others[int((u - chance) / (1 - chance) * len(others))]
    center, width = quantile_of(distribution, value), WIDTHS[sure]
    low, high = ndtr(-center / width), ndtr((1 - center) / width)
    share = center + width * float(ndtri(low + u * (high - low)))
    return at_quantile(distribution, min(max(share, 0.0), math.nextafter(1.0, 0.0)))


def in_words(distribution: BaseDistribution) -> str:
    """Its values, for people."""
    if isinstance(distribution, CategoricalDistribution):
        return "one of " + ", ".join(str(choice) for choice in distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    whole = isinstance(distribution, IntDistribution) and distribution.step == 1
    steps = "" if distribution.step is None or whole else f" in steps of {distribution.step:g}"
    return f"{distribution.low:g} to {distribution.high:g}{' on a log scale' if distribution.log else steps}"


def contains(distribution: BaseDistribution, value: Any) -> bool:
    """Whether `value` is one of the distribution's; text that Optuna would read as a number is none. `_contains` is
    private to Optuna (5.0)."""
    if not isinstance(distribution, CategoricalDistribution) and isinstance(value, str | bool):
        return False
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except (ValueError, TypeError):
        return False
