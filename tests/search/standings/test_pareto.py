from __future__ import annotations

import math
import time
import tracemalloc

import numpy as np
import pytest

from search.standings.pareto import crowding_distance, fronts, hypervolume, places
from search.standings.scales import Scales, ranking
from vaegan_core.evaluation import KL, LAYOUT_FD, PIXEL_MSE, SAMPLES_FD

BOTH = (PIXEL_MSE, SAMPLES_FD)
INF = math.inf


def dominates(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(all(a <= b) and any(a < b))


def fronts_by_definition(values: np.ndarray) -> list[int]:
    """Peels off what nothing left dominates."""
    left, front, level = set(range(len(values))), [-1] * len(values), 0
    while left:
        peel = {i for i in left if not any(dominates(values[j], values[i]) for j in left)}
        for i in peel:
            front[i] = level
        left -= peel
        level += 1
    return front


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[1, 5], [2, 3], [4, 1], [3, 4], [5, 5], [2, 3]], [0, 0, 0, 1, 2, 0]),
        ([[1, 1]], [0]),
        ([[1, 1], [1, 1]], [0, 0]),
        ([[1, 2], [1, 1], [2, 1]], [1, 0, 1]),
        ([[3], [1], [2], [1]], [2, 0, 1, 0]),
    ],
)
def test_fronts(values: list[list[float]], expected: list[int]) -> None:
    assert fronts(np.array(values, float)).tolist() == expected


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_fronts_against_the_definition(objectives: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        values = rng.integers(0, 6, (25, objectives)).astype(float)
        assert fronts(values).tolist() == fronts_by_definition(values)


@pytest.mark.parametrize("objectives", [1, 2])
def test_fronts_of_thousands_are_quick(objectives: int) -> None:
    values = np.random.default_rng(0).random((1000, objectives))
    start = time.perf_counter()
    fronts(values)
    assert time.perf_counter() - start < 1


def test_crowding_distance() -> None:
    # Neighbors of the second: (3 - 0) / 4 + (8 - 2) / 8; of the third: (4 - 1) / 4 + (4 - 0) / 8
    values = np.array([[0, 8], [1, 4], [3, 2], [4, 0]], float)
    assert crowding_distance(values).tolist() == [INF, 0.75 + 0.75, 0.75 + 0.5, INF]
    shuffled = [2, 0, 3, 1]
    assert crowding_distance(values[shuffled]).tolist() == [1.25, INF, INF, 1.5]
    assert crowding_distance(np.array([[1.0, 2.0]])).tolist() == [INF]
    assert crowding_distance(np.array([[1.0, 2.0], [2.0, 1.0]])).tolist() == [INF, INF]


def test_crowding_distance_is_relative_to_the_extent_of_each_objective() -> None:
    values = np.array([[0.1, 900.0], [0.2, 500.0], [0.25, 450.0], [0.3, 100.0]])
    expected = [INF, 0.15 / 0.2 + 450 / 800, 0.1 / 0.2 + 400 / 800, INF]
    assert crowding_distance(values).tolist() == pytest.approx(expected)
    assert crowding_distance(values[[0, 1, 3]]).tolist() == pytest.approx([INF, 2.0, INF])


def test_places_by_front_then_by_crowding() -> None:
    values = np.array([[0, 8], [1, 4], [3, 2], [4, 0], [5, 5]], float)
    assert places(values).tolist() == [1, 3, 4, 1, 5]
    assert places(np.array([[0.3], [0.1], [0.2], [0.1]])).tolist() == [4, 1, 3, 1]
    assert places(np.array([[1.0, 1.0]])).tolist() == [1]
    assert places(np.array([[2.0, 2.0], [1.0, 1.0]])).tolist() == [2, 1]


SCALES = Scales(trivial_mse=0.2, distance=SAMPLES_FD, mean_color=110.0, floor=10.0)


def trial(s1: float, s2: float) -> dict[str, float]:
    return {PIXEL_MSE: 0.2 * s1, SAMPLES_FD: 10.0 + 100.0 * s2}


def test_scores() -> None:
    old = {"mean_color_mse": 0.2, "mean_color_fd": 110.0, "floor": 10.0}
    assert Scales.of(old, [PIXEL_MSE, LAYOUT_FD]) == SCALES, "all that a sweep of an old version has"
    new = old | {"mean_color_layout_fd": 70.0, "floor_layout_fd": 20.0}
    assert Scales.of(new, [PIXEL_MSE, SAMPLES_FD]) == SCALES, "the distance that the sweep minimizes"
    for objectives in ([PIXEL_MSE, LAYOUT_FD], [PIXEL_MSE]):
        assert Scales.of(new, objectives) == Scales(0.2, LAYOUT_FD, 70.0, 20.0)
    still = Scales.of(old | {"mean_image_mse": 0.1}, [PIXEL_MSE])
    assert (still.trivial_mse, still.trivial) == (0.1, "mean image"), "a background that stands still"
    assert Scales.of(old | {"mean_image_mse": 0.3}, [PIXEL_MSE]) == SCALES
    assert SCALES.scores(trial(0.25, 0.5)) == pytest.approx((0.25, 0.5))
    assert SCALES.scores(trial(1, 1)) == pytest.approx((1, 1)), "the mean color scores one"
    assert SCALES.scores(trial(0.25, -0.5)) == pytest.approx((0.25, 0.01)), "nothing is better than the floor"


def test_ranking_of_two_objectives() -> None:
    trials = [
        trial(0.9, 0.02),  # 0 on the front, sqrt(.018) is the smallest, but s1 > .5
        trial(0.4, 0.2),  # 1 on the front, sqrt(.08)
        trial(0.2, 0.3),  # 2 on the front, sqrt(.06)
        trial(0.25, 0.31),  # 3 behind 2
        trial(0.5, 0.1),  # 4 on the front, s1 = .5 is still accepted, sqrt(.05)
    ]
    assert ranking(trials, BOTH, SCALES) == [4, 2, 1, 0, 3]
    assert ranking(trials, BOTH[::-1], SCALES) == [4, 2, 1, 0, 3], "whatever the order of the objectives"


def test_ranking_of_other_objectives_is_by_front_then_by_the_sum_of_places() -> None:
    values = [(4.0, 4.0), (1.0, 60.0), (3.0, 3.0), (60.0, 1.0), (2.0, 2.0), (5.0, 5.0)]  # sums: 6, 5, 4, 5, 2, 8
    assert ranking([{PIXEL_MSE: x, KL: y} for x, y in values], [PIXEL_MSE, KL], SCALES) == [4, 1, 3, 2, 0, 5]


def test_ranking_of_one_objective_is_by_value() -> None:
    trials = [trial(0.3, 0.5), trial(0.9, 0.1), trial(0.3, 0.2)]
    assert ranking(trials, [PIXEL_MSE], SCALES) == [0, 2, 1]
    assert ranking(trials, [SAMPLES_FD], SCALES) == [1, 2, 0]
    assert ranking([], BOTH, SCALES) == []
    assert ranking(trials[:1], BOTH, SCALES) == [0]


@pytest.mark.parametrize(
    ("points", "area"),
    [
        ([], 0.0),
        ([(0.5, 0.5)], 0.25),
        ([(0.5, 0.5), (0.5, 0.5)], 0.25),
        ([(0.2, 0.6), (0.5, 0.4)], 0.8 * 0.4 + 0.5 * 0.2),
        ([(0.5, 0.4), (0.2, 0.6), (0.6, 0.7)], 0.42),
        ([(0.5, 0.4), (0.5, 0.2)], 0.4),
        ([(0.5, 0.4), (0.2, 0.4)], 0.48),
        ([(1.0, 0.0), (0.0, 1.0), (2.0, 0.1), (0.1, 2.0)], 0.0),
        ([(0.0, 0.0), (0.3, 0.3)], 1.0),
    ],
)
def test_hypervolume(points: list[tuple[float, float]], area: float) -> None:
    assert hypervolume(points) == pytest.approx(area)


def test_hypervolume_against_counting_cells() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        points = rng.integers(0, 13, (8, 2)) / 10
        cells = (np.arange(10) + 0.5) / 10
        covered = [any(s1 <= x and s2 <= y for s1, s2 in points) for x in cells for y in cells]
        assert hypervolume([(a, b) for a, b in points]) == pytest.approx(np.mean(covered))


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_places_against_counting(objectives: int) -> None:
    rng = np.random.default_rng(1)
    for _ in range(10):
        values = rng.integers(0, 5, (30, objectives)).astype(float)
        front, crowding = fronts(values), np.zeros(30)
        for level in set(front.tolist()) if objectives > 1 else ():
            crowding[front == level] = crowding_distance(values[front == level])
        ahead = [
            sum(front[j] < front[i] or (front[j] == front[i] and crowding[j] > crowding[i]) for j in range(30))
            for i in range(30)
        ]
        assert places(values).tolist() == [1 + count for count in ahead]
    assert places(np.zeros((0, objectives))).tolist() == []


def test_ten_thousand_trials_need_little_memory() -> None:
    values = np.random.default_rng(0).random((10_000, 2))
    tracemalloc.start()
    try:
        places(values)
        ranking([{PIXEL_MSE: x, KL: y} for x, y in values.tolist()], [PIXEL_MSE, KL], SCALES)
        assert tracemalloc.get_traced_memory()[1] < 20e6, "a matrix of all pairs has 1e8 entries"
    finally:
        tracemalloc.stop()
