from __future__ import annotations

import math

import numpy as np
import pytest

from search.questions.intervals import mean_interval, mean_p
from search.questions.looks import Plan, levels, looks_until, planned_looks
from search.questions.power import blocks_needed, chance_of_none, effect_seen, more_blocks

SPREADS = {"pixel MSE": 0.13, "sample distance": 0.35}


def test_the_effect_seen_with_the_blocks_needed_is_at_most_the_one_asked_for() -> None:
    for spread in SPREADS.values():
        blocks = blocks_needed(spread, 1.25, 6)
        assert blocks % 8 == 0
        assert effect_seen(spread, blocks, 6) <= 1.25 * 1.005
        assert blocks == 8 or effect_seen(spread, blocks - 8, 6) > 1.25


def test_lowering_takes_as_many_blocks_as_raising() -> None:
    assert blocks_needed(0.35, 1 / 1.25, 6) == blocks_needed(0.35, 1.25, 6)


def test_eight_blocks_see_a_quarter_of_a_sample_distance_rarely() -> None:
    """The 35 % of cases that MEASURES gives for one look without the other questions."""
    contrasts = 0.35 * np.random.default_rng(0).normal(size=(4000, 8)) + math.log(1.25)
    seen = (mean_p(contrasts) <= 0.05).mean()
    assert 0.2 < seen < 0.37
    assert blocks_needed(0.35, 1.25, 1) >= 24
    assert blocks_needed(0.35, 1.25, 6) > blocks_needed(0.35, 1.25, 1)


@pytest.mark.parametrize("blocks", [8, 40])
def test_what_is_seen_is_claimed_as_often_as_said(blocks: int) -> None:
    ratio = effect_seen(0.3, blocks, 3)
    contrasts = 0.3 * np.random.default_rng(1).normal(size=(4000, blocks)) + math.log(ratio)
    level = levels(planned_looks(8, blocks), blocks, 0.05 / 3)[-1]
    assert (mean_p(contrasts) <= level).mean() == pytest.approx(0.8, abs=0.03)


def test_the_formula_beyond_many_blocks_continues_the_simulation() -> None:
    below, above = effect_seen(0.3, 128, 6), effect_seen(0.3, 136, 6)
    assert 0.97 < math.log(above) / math.log(below) * math.sqrt(136 / 128) < 1.01
    assert chance_of_none(0.6, 1.25, 136) > chance_of_none(0.6, 1.25, 128) - 0.01


def test_the_chance_to_call_nothing_nothing_is_that_of_normal_contrasts() -> None:
    contrasts = 0.2 * np.random.default_rng(2).normal(size=(4000, 16))
    found = mean_interval(contrasts, levels(planned_looks(8, 16), 16)[-1])
    inside = (found.low > -math.log(1.25)) & (found.high < math.log(1.25))
    assert chance_of_none(0.2, 1.25, 16) == pytest.approx(inside.mean(), abs=0.03)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, 1.25, 6), "spread must be greater than 0, but got 0.0"),
        ((0.3, 1.0, 6), "effect must be a ratio other than 1, but got 1.0"),
        ((0.3, 1.25, 0), "questions must be at least 1, but got 0"),
        ((0.7, 1.01, 6), "takes more than 2,048 blocks"),
    ],
)
def test_what_no_blocks_can_see_is_refused(arguments: tuple[float, float, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        blocks_needed(*arguments)


def test_one_block_sees_nothing() -> None:
    with pytest.raises(ValueError, match="blocks must be at least 2, but got 1"):
        effect_seen(0.3, 1, 6)


@pytest.mark.parametrize(("estimate", "spread"), [(0.15, 0.35), (0.0, 0.35), (0.3, 0.5)])
def test_blocks_that_would_tell_mostly_do(estimate: float, spread: float) -> None:
    looks, before, runs = planned_looks(8, 24), 16, 2000
    so_far = np.linspace(-1, 1, before)
    so_far = estimate + spread * so_far / so_far.std(ddof=1)
    more = more_blocks(so_far, before, math.log(1.25), looks=looks, tests=6)
    assert more is not None
    random = np.random.default_rng(3)
    true = random.normal(estimate, spread / math.sqrt(before), size=(runs, 1))
    ahead = true + spread * random.normal(size=(runs, more))
    contrasts = np.concatenate([np.tile(so_far, (runs, 1)), ahead], axis=1)
    path = looks_until(looks, before + more)
    single, together = (levels(path, 24, level)[-1] for level in (0.05, 0.05 / 6))
    found = mean_interval(contrasts, single)
    equal = (found.low > -math.log(1.25)) & (found.high < math.log(1.25))
    told = (equal | (mean_p(contrasts) <= together)).mean()
    assert 0.72 <= told <= 0.95


def test_sometimes_not_even_many_blocks_would_tell() -> None:
    so_far = 0.1 + 2.0 * np.linspace(-1, 1, 16)
    assert more_blocks(so_far, 16, math.log(1.1), looks=(8, 16, 24), tests=6) is None


def test_looks_that_were_planned_for_fewer_blocks_cost_later_ones_their_power() -> None:
    """A sweep that was registered for 8 blocks has spent nine tenths of its level there."""
    extended, planned = Plan(8, 8), Plan(8, 24)
    assert planned.level(24) == Plan().level(24) > 5 * extended.level(24)
    ratio = effect_seen(0.35, 24, 6, plan=extended)
    assert math.log(ratio) > 1.25 * math.log(effect_seen(0.35, 24, 6, plan=planned))
    assert blocks_needed(0.35, 1.4, 6, plan=extended) > blocks_needed(0.35, 1.4, 6, plan=planned)
    assert chance_of_none(0.35, 1.25, 24, plan=extended) < 0.5 * chance_of_none(0.35, 1.25, 24, plan=planned)
    level = levels(looks_until(planned_looks(8, 8), 24), 8, 0.05 / 6)[-1]
    contrasts = 0.35 * np.random.default_rng(4).normal(size=(4000, 24)) + math.log(ratio)
    assert (mean_p(contrasts) <= level).mean() == pytest.approx(0.8, abs=0.03)
