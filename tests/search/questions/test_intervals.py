"""Estimates and intervals against formulas, scipy and planted truth; 2,000 runs of each:
tests/benchmarks/questions_coverage.py."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from planted_blocks import WORLDS, planted_blocks, truths
from scipy import stats

from search.questions.intervals import expected_best, mean_interval, mean_p, tuned_interval, typical_interval

RUNS = 1000
TOLERANCE = 3 * np.sqrt(0.05 * 0.95 / RUNS)
"""Three standard errors of a share of 0.05 in `RUNS` runs."""
LEAST_TUNED = {"effects with heavy tails": 0.92}
"""A few lucky blocks decide what is best there."""


def test_without_skewness_the_interval_is_t() -> None:
    contrasts = np.array([-1.0, -0.4, -0.2, 0.2, 0.4, 1.0]) + 0.7
    found = mean_interval(contrasts, 0.05)
    low, high = stats.t.interval(0.95, 5, 0.7, stats.sem(contrasts))
    assert found == pytest.approx((0.7, low, high))
    assert float(mean_p(contrasts)) == pytest.approx(stats.ttest_1samp(contrasts, 0).pvalue)


def test_skewness_only_widens_the_interval() -> None:
    contrasts = np.random.default_rng(0).gamma(1.0, size=(50, 12))
    found = mean_interval(contrasts, 0.01)
    half = stats.t.isf(0.005, 11) * stats.sem(contrasts, axis=-1)
    assert (found.low <= found.estimate - half + 1e-12).all()
    assert (found.high >= found.estimate + half - 1e-12).all()
    assert (found.high > found.estimate + 1.05 * half).mean() > 0.8  # towards the long tail


def test_p_is_the_level_at_which_the_interval_ends_at_zero() -> None:
    random = np.random.default_rng(1)
    for _ in range(50):
        contrasts = random.gamma(1.0, size=random.integers(5, 30)) - random.uniform(0, 2)
        p = float(mean_p(contrasts))
        if p < 0.99:
            wider, narrower = mean_interval(contrasts, 0.999 * p), mean_interval(contrasts, 1.001 * p)
            assert wider.low <= 0 <= wider.high
            assert not narrower.low <= 0 <= narrower.high


def test_contrasts_without_spread_are_sure() -> None:
    assert float(mean_p(np.full(8, 0.1))) < 1e-12
    assert float(mean_p(np.zeros(8))) == 1.0


def test_the_typical_effect_inverts_the_signed_rank_test() -> None:
    contrasts = np.random.default_rng(2).normal(0.3, size=12)
    found = typical_interval(contrasts, 0.05)
    pairs = [(one + other) / 2 for one, other in combinations(contrasts, 2)] + contrasts.tolist()
    assert float(found.estimate) == pytest.approx(np.median(pairs))
    for end, inwards in ((float(found.low), 1e-9), (float(found.high), -1e-9)):
        assert stats.wilcoxon(contrasts - end - inwards, method="exact").pvalue > 0.05
        assert stats.wilcoxon(contrasts - end + inwards, method="exact").pvalue <= 0.05


def test_the_typical_effect_of_few_blocks_has_no_bounds() -> None:
    found = typical_interval(np.arange(4.0), 0.05)
    assert (float(found.low), float(found.high)) == (-np.inf, np.inf)


def test_a_wild_block_moves_the_typical_effect_little() -> None:
    contrasts = np.random.default_rng(3).normal(0.3, 0.1, size=16)
    wild = np.append(contrasts[:-1], 50.0)
    assert abs(float(typical_interval(wild, 0.05).high) - float(typical_interval(contrasts, 0.05).high)) < 0.1
    assert mean_interval(wild, 0.05).high > 5


def test_the_expected_best_is_the_mean_over_all_draws() -> None:
    values = np.random.default_rng(4).normal(size=9)
    for draws in (1, 2, 3, 9):
        by_hand = np.mean([min(chosen) for chosen in combinations(values, draws)])
        assert float(expected_best(values, draws)) == pytest.approx(by_hand)


def test_the_tuned_interval_is_the_jackknife_s() -> None:
    values = planted_blocks("an optimum that moves", (10,), np.random.default_rng(5))
    found = tuned_interval(values[:, 0], values[:, 1], 3, 0.05)

    def effect(blocks: np.ndarray) -> float:
        return float(expected_best(blocks[:, 1], 3) - expected_best(blocks[:, 0], 3))

    without = np.array([effect(np.delete(values, block, axis=0)) for block in range(10)])
    error = np.sqrt(9 / 10 * ((without - without.mean()) ** 2).sum())
    assert float(found.estimate) == pytest.approx(effect(values))
    assert float(found.high - found.low) == pytest.approx(2 * stats.t.isf(0.025, 4.5) * error)


@pytest.mark.parametrize("blocks", [8, 16, 32])
@pytest.mark.parametrize("world", WORLDS)
def test_intervals_cover_what_is_planted(world: str, blocks: int) -> None:
    values = planted_blocks(world, (RUNS, blocks), np.random.default_rng(blocks), effect=0.2)
    contrasts = values[..., 1] - values[..., 0]
    mean, typical, tuned = truths(world, 3, effect=0.2)
    for found, truth, least in (
        (mean_interval(contrasts, 0.05), mean, 0.93),
        (typical_interval(contrasts, 0.05), typical, 0.93),
        (tuned_interval(values[..., 0], values[..., 1], 3, 0.05), tuned, LEAST_TUNED.get(world, 0.93)),
    ):
        covered = ((found.low <= truth) & (truth <= found.high)).mean()
        assert least - TOLERANCE <= covered <= 0.97 + TOLERANCE


def test_tuned_and_average_differ_in_sign_where_a_level_forgives() -> None:
    values = planted_blocks("worse at best, better on average", (400,), np.random.default_rng(6), effect=0.2)
    average = mean_interval(values[:, 1] - values[:, 0], 0.05)
    tuned = tuned_interval(values[:, 0], values[:, 1], 12, 0.05)
    assert average.high < 0 < tuned.low
