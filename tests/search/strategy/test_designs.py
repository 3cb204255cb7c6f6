from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from sweeps import make_sweep

from search.config.distributions import at_quantile, values_of
from search.config.space_parser import parse_space
from search.standings.pareto import places
from search.standings.ranks import Ranks
from search.strategy.designs import grid_point, quasi_random


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
def test_quantiles_spread_evenly_over_what_a_sampler_may_choose(distribution, values) -> None:
    assert [at_quantile(distribution, u) for u in (0.0, 0.25, 0.5, 0.75)] == pytest.approx(values) or [
        at_quantile(distribution, u) for u in (0.0, 0.25, 0.5, 0.75)
    ] == values


def test_whole_numbers_on_a_log_scale_stay_inside_and_reach_both_ends() -> None:
    distribution = IntDistribution(1, 8, log=True)
    found = Counter(at_quantile(distribution, u) for u in np.linspace(0, 1, 1001)[:-1])
    assert set(found) == set(range(1, 9))
    expected = math.log(1.5 / 0.5) / math.log(8.5 / 0.5)
    assert found[1] / 1000 == pytest.approx(expected, abs=0.01)


def test_sobol_points_depend_on_index_and_seed_alone() -> None:
    space = make_sweep().space
    assert quasi_random(space, 5, 0) == quasi_random(space, 5, 0)
    assert quasi_random(space, 5, 0) != quasi_random(space, 6, 0) != quasi_random(space, 6, 1)


def test_the_grid_has_every_combination_once_nested_branches_included() -> None:
    space, problems = parse_space(
        {
            "model.width": [8, 16],
            "train.batch_size": {"low": 8, "high": 16, "step": 8},
            "loss.kl": {
                "one_of": {
                    "fixed": {"sigma": [0.1, 0.2, 0.3]},
                    "capacity": {"gamma_sigma": 0.1, "capacity_max": [10, 20], "ramp": 0.5},
                }
            },
        }
    )
    assert problems == []
    assert space.size() == 20
    points = [grid_point(space, index) for index in range(20)]
    assert len({tuple(sorted(point.items())) for point in points}) == 20
    assert Counter(point["loss.kl.control"] for point in points) == {"fixed": 12, "capacity": 8}


def test_values_of_a_range_with_a_step_never_leave_it() -> None:
    assert values_of(FloatDistribution(0.1, 0.3, step=0.1)) == [0.1, 0.2, 0.3]


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_places_that_are_kept_up_to_date_are_those_of_all_points(objectives: int) -> None:
    points = np.random.default_rng(0).random((200, objectives))
    ranks = Ranks()
    for count, point in enumerate(points, 1):
        assert ranks.add(tuple(point)) == places(points[:count])[-1]
    assert len(ranks) == 200


def test_equal_points_share_the_best_place_of_theirs() -> None:
    ranks = Ranks()
    assert [ranks.add((1.0, 2.0)) for _ in range(3)] == [1, 1, 1]
    assert ranks.add((2.0, 3.0)) == 4, "beaten by all three"
