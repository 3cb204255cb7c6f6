from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from search.config.distributions import at_quantile, contains, count_values, index_of, near, quantile_of, value_at


@pytest.mark.parametrize(
    ("distribution", "values"),
    [
        (CategoricalDistribution(["b", 1, None]), ["b", 1, None]),
        (IntDistribution(3, 9), [3, 4, 5, 6, 7, 8, 9]),
        (IntDistribution(8, 64, step=28), [8, 36, 64]),
        (IntDistribution(1, 4, log=True), [1, 2, 3, 4]),
        (FloatDistribution(0.1, 0.3, step=0.1), [0.1, 0.2, 0.3]),
    ],
)
def test_finite_distributions_count_and_list_their_values(distribution: BaseDistribution, values: list[Any]) -> None:
    assert count_values(distribution) == len(values)
    assert [value_at(distribution, index) for index in range(len(values))] == values
    assert [index_of(distribution, value) for value in values] == list(range(len(values)))
    assert all(contains(distribution, value) for value in values)


@pytest.mark.parametrize("distribution", [FloatDistribution(0, 1), FloatDistribution(0.1, 1, log=True)])
def test_the_values_of_a_continuous_range_cannot_be_listed(distribution: BaseDistribution) -> None:
    assert math.isinf(count_values(distribution))


def test_many_values_are_not_listed_to_draw_from_them() -> None:
    distribution = FloatDistribution(0.0, 1.0, step=1e-12)
    assert at_quantile(distribution, 0.5) == pytest.approx(0.5)
    assert quantile_of(distribution, 0.5) == pytest.approx(0.5)
    assert near(IntDistribution(0, 2**31 - 1), 10**9, "high", 0.5) == pytest.approx(1e9, rel=1e-3)
    drawn = [at_quantile(distribution, u / 10) for u in range(10)]
    assert all(low < high for low, high in pairwise(drawn))


@pytest.mark.parametrize(
    ("distribution", "value"),
    [
        (CategoricalDistribution(["b", 1]), "a"),
        (CategoricalDistribution(["b", 1]), ["b"]),
        (IntDistribution(8, 64, step=8), 12),
        (IntDistribution(8, 64), 65),
        (IntDistribution(8, 64), "eight"),
        (IntDistribution(8, 64), "8"),
        (FloatDistribution(0, 1), "0.5"),
        (FloatDistribution(0, 1), True),
        (FloatDistribution(0, 1), 1.5),
        (FloatDistribution(0, 1), None),
    ],
)
def test_other_values_are_not_contained(distribution: BaseDistribution, value: object) -> None:
    assert not contains(distribution, value)


@pytest.mark.parametrize(
    ("distribution", "values"),
    [
        (FloatDistribution(1.0, 3.0), [1.0, 1.5, 2.0, 2.5]),
        (FloatDistribution(1e-4, 1.0, log=True), [1e-4, 1e-3, 1e-2, 1e-1]),
        (FloatDistribution(0.1, 0.4, step=0.1), [0.1, 0.2, 0.3, 0.4]),
        (IntDistribution(1, 7, step=2), [1, 3, 5, 7]),
        (CategoricalDistribution(["a", "b"]), ["a", "a", "b", "b"]),
    ],
)
def test_quantiles_spread_evenly_over_what_a_sampler_may_choose(distribution: BaseDistribution, values: Any) -> None:
    assert [at_quantile(distribution, u) for u in (0.0, 0.25, 0.5, 0.75)] == pytest.approx(values) or [
        at_quantile(distribution, u) for u in (0.0, 0.25, 0.5, 0.75)
    ] == values


def test_whole_numbers_on_a_log_scale_stay_inside_and_reach_both_ends() -> None:
    distribution = IntDistribution(1, 8, log=True)
    found = Counter(at_quantile(distribution, u) for u in np.linspace(0, 1, 1001)[:-1])
    assert set(found) == set(range(1, 9))
    expected = math.log(1.5 / 0.5) / math.log(8.5 / 0.5)
    assert found[1] / 1000 == pytest.approx(expected, abs=0.01)
