from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from sweeps import make_sweep

from search.config.space_parser import parse_space
from search.standings.pareto import fronts, places
from search.standings.ranks import Ranks
from search.strategy.designs import grid_point, quasi_random


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


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_places_that_are_kept_up_to_date_are_those_of_all_points(objectives: int) -> None:
    points = np.random.default_rng(0).random((200, objectives))
    ranks = Ranks()
    for count, point in enumerate(points, 1):
        assert ranks.add(tuple(point)) == places(points[:count])[-1]
    assert len(ranks) == 200


@pytest.mark.parametrize("objectives", [2, 3])
def test_points_that_tie_in_some_objectives_are_on_the_fronts_of_all_points(objectives: int) -> None:
    """Among ties, who is less crowded depends on their order; the front does not."""
    points = np.random.default_rng(0).integers(0, 6, (200, objectives)).astype(float)
    ranks = Ranks()
    for count, point in enumerate(points, 1):
        ranks.add(tuple(point))
        front = fronts(points[:count])
        for other in (0, count // 2, count - 1):
            better, equal = (front < front[other]).sum(), (front == front[other]).sum()
            assert better < ranks.place(tuple(points[other])) <= better + equal


def test_equal_points_share_the_best_place_of_theirs() -> None:
    ranks = Ranks()
    assert [ranks.add((1.0, 2.0)) for _ in range(3)] == [1, 1, 1]
    assert ranks.add((2.0, 3.0)) == 4, "beaten by all three"
