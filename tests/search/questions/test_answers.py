"""Answers from planted blocks: what is claimed, when, and how often wrongly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from planted_blocks import as_runs, planted_blocks, question
from questions_coverage import follow, looked_at, no_effect, powered
from scipy import stats

from search.questions.answers import Answer, Verdict, answers, draws_of, holm, verdicts_of
from search.questions.blocks import BlockRun
from search.questions.looks import planned_looks

LOOKS = planned_looks(8, 24)
NOISE = 0.1


def blocks_of(effect: float, count: int, noise: float = NOISE, seed: int = 0) -> np.ndarray:
    """Log outcomes [count, 2] whose contrasts are symmetric around the effect."""
    random = np.random.default_rng(seed)
    reference = random.normal(size=count)
    return np.stack([reference, reference + effect + noise * random.normal(size=count)], axis=-1)


def answer_of(blocks: np.ndarray, looks: Sequence[int] = LOOKS, over: bool = False, **changes: object) -> Answer:
    asked = question(**changes)
    (found,) = answers([asked], as_runs("norm", blocks), looks=looks, over=over)
    return found


def test_a_planted_ratio_is_found() -> None:
    found = answer_of(blocks_of(np.log(1.4), 24))
    assert found.verdict is Verdict.DIFFERENCE
    assert found.average is not None
    assert found.average.estimate == pytest.approx(1.4, rel=0.05)
    assert found.average.low < 1.4 < found.average.high
    assert found.holm < 0.001
    assert found.more is None


def test_a_planted_null_has_no_practical_effect() -> None:
    found = answer_of(blocks_of(0.0, 24))
    assert found.verdict is Verdict.NO_PRACTICAL_EFFECT
    assert found.average is not None
    assert 1 / 1.25 < found.average.low < 1 < found.average.high < 1.25


def test_an_effect_that_nobody_cares_about_is_no_practical_effect() -> None:
    found = answer_of(blocks_of(np.log(1.1), 24, noise=0.02))
    assert found.average is not None
    assert found.average.low > 1
    assert found.verdict is Verdict.NO_PRACTICAL_EFFECT


def test_too_wide_an_interval_is_not_enough_evidence() -> None:
    found = answer_of(blocks_of(0.1, 8, noise=0.4))
    assert found.verdict is Verdict.NOT_ENOUGH
    assert found.more is not None
    assert found.more % 8 == 0


def test_there_is_no_answer_before_the_first_look() -> None:
    found = answer_of(blocks_of(1.0, 7))
    assert (found.verdict, found.average, found.ended, found.look, found.next_look) == (
        Verdict.NOT_ENOUGH,
        None,
        7,
        0,
        8,
    )


def test_blocks_between_two_looks_change_nothing() -> None:
    blocks = blocks_of(0.2, 24)
    at_look, between, next_one = (answer_of(blocks[:count]) for count in (8, 15, 16))
    assert (between.average, between.p, between.look) == (at_look.average, at_look.p, 8)
    assert (between.ended, between.next_look) == (15, 16)
    assert next_one.average != at_look.average


def test_where_the_sweep_is_over_its_end_is_a_look() -> None:
    found = answer_of(blocks_of(0.2, 13), over=True)
    assert found.look == 13
    assert answer_of(blocks_of(0.2, 13)).look == 8
    assert answer_of(blocks_of(0.2, 1), over=True).look == 0


def test_a_sweep_that_was_extended_goes_on_looking() -> None:
    blocks = blocks_of(0.03, 42)
    found = answer_of(blocks)
    assert (found.look, found.next_look) == (40, 48)
    planned = answer_of(blocks, looks=planned_looks(8, 40))
    assert planned.p < found.p  # looks that were not planned cost more


def test_looking_often_costs_a_wider_interval() -> None:
    blocks = blocks_of(0.2, 24)
    often, once = answer_of(blocks), answer_of(blocks, looks=(24,))
    assert often.average is not None
    assert once.average is not None
    assert often.average.high - often.average.low > once.average.high - once.average.low


def test_holm_s_adjustment_is_by_hand() -> None:
    assert holm(np.array([0.03, 0.01, 0.02, 0.9])) == pytest.approx([0.06, 0.04, 0.06, 0.9])
    assert holm(np.array([0.6, 0.5])) == pytest.approx([1.0, 1.0])
    assert holm(np.array([[0.04, 0.01], [0.01, 0.01]])).tolist() == [[0.04, 0.02], [0.02, 0.02]]


def test_other_questions_make_a_weak_claim_weaker() -> None:
    contrasts = 0.1 + 0.2 * stats.norm.ppf((np.arange(24) + 0.5) / 24)
    blocks = np.stack([np.zeros(24), contrasts], axis=-1)
    alone = answer_of(blocks, smallest_effect=1.01)
    assert alone.verdict is Verdict.DIFFERENCE
    asked = [question(name, smallest_effect=1.01) for name in ("norm", "b", "c", "d", "e", "f")]
    runs = as_runs("norm", blocks)
    for index, other in enumerate(asked[1:]):
        runs += as_runs(other.name, blocks_of(0.0, 24, seed=10 + index))
    together = answers(asked, runs, looks=LOOKS)[0]
    assert together.p == alone.p
    assert together.holm > 0.05
    assert together.verdict is Verdict.NOT_ENOUGH


def test_the_average_is_of_blocks_in_which_both_levels_ended() -> None:
    blocks = blocks_of(0.5, 24)
    blocks[:5, 1] = np.inf
    found = answer_of(blocks)
    assert found.average is not None
    assert (found.average.blocks, found.divergences.level, found.divergences.reference) == (19, 5, 0)
    assert found.divergence_holm >= found.divergences.p == pytest.approx(1 / 16)
    assert found.divergences.worst_p is not None


def test_where_a_level_always_diverges_only_that_can_be_said() -> None:
    blocks = blocks_of(0.0, 24)
    blocks[:, 1] = np.inf
    found = answer_of(blocks)
    assert found.average is None
    assert found.verdict is Verdict.DIVERGENCE
    assert found.divergence_holm < 0.001


def test_survivors_alone_do_not_make_a_level_harmless() -> None:
    """Where blocks are hard it diverges; in the others it is the same."""
    blocks = blocks_of(0.0, 24, noise=0.01)
    assert answer_of(blocks).verdict is Verdict.NO_PRACTICAL_EFFECT
    blocks[:14, 1] = np.inf
    found = answer_of(blocks)
    assert found.verdict is Verdict.DIVERGENCE
    assert verdicts_of([found]) == {"norm": Verdict.DIVERGENCE}
    assert found.worst_holm < 0.05
    assert found.divergences.level_is_worse


def test_to_diverge_as_the_worst_outcome_is_paid_for_by_looks_and_questions() -> None:
    blocks = blocks_of(0.1, 24)
    blocks[0, 1] = np.inf
    found = answer_of(blocks)
    assert found.divergences.worst_p is not None
    assert found.worst_holm > found.divergences.worst_p


def test_half_of_a_level_s_trials_diverged_are_worse_when_tuned() -> None:
    runs = []
    for block, base in enumerate(np.random.default_rng(0).normal(scale=0.3, size=24)):
        for index, (a, b, c) in enumerate(product((0, 1), repeat=3)):
            outcome = float(np.exp(base + 0.01 * c))
            gone = bool(a and b)
            levels = {"norm": a, "b": b, "c": c}
            runs.append(BlockRun(8 * block + index, block, levels, {}, {}, dict.fromkeys(levels, outcome), gone, {}))
    [found] = answers([question()], runs, looks=LOOKS)
    assert found.average is not None
    assert found.average.estimate == pytest.approx(1.0)
    assert found.tuned is not None
    assert found.tuned.low > 1.25


def test_diverged_trials_are_the_worst_where_levels_are_tuned() -> None:
    blocks = blocks_of(0.0, 24, noise=0.01)
    before, worst = answer_of(blocks).tuned, blocks[:, 0].argmax()
    blocks[worst, 1] = np.inf  # where it is worst anyway
    after = answer_of(blocks).tuned
    assert before is not None
    assert after is not None
    assert after.blocks == 24
    assert after.estimate == pytest.approx(before.estimate, abs=0.02)


def test_what_has_no_better_side_is_not_tuned() -> None:
    blocks = blocks_of(0.3, 24)
    assert answer_of(blocks, outcome="val/kl").tuned is None
    assert answer_of(blocks, outcome="slope of val/kl", scale="difference").tuned is None


def test_more_is_better_where_the_metric_says_so() -> None:
    """The best of SSIM is the largest: as the least of its inverse."""
    blocks = blocks_of(0.3, 24)
    more, less = answer_of(blocks, outcome="val/ssim").tuned, answer_of(-blocks).tuned
    assert more is not None
    assert less is not None
    assert more.estimate == pytest.approx(1 / less.estimate)
    assert (more.low, more.high) == pytest.approx((1 / less.high, 1 / less.low))


def test_more_draws_are_expected_of_more_blocks() -> None:
    assert [draws_of(blocks) for blocks in (8, 24, 32, 64)] == [3, 3, 4, 8]
    blocks, looks = blocks_of(0.3, 64), planned_looks(8, 64)
    assert (answer_of(blocks[:40], looks).draws, answer_of(blocks, looks).draws) == (5, 8)
    assert answer_of(blocks[:6], looks=(6, 12)).tuned is None


def test_a_question_is_decided_once_all_of_its_levels_are() -> None:
    random = np.random.default_rng(0)
    runs = []
    for block in range(24):
        reference = random.normal()
        for level, (effect, noise) in enumerate(((0.0, 0.0), (0.5, 0.1), (0.1, 1.5))):
            value = float(np.exp(reference + effect + noise * random.normal()))
            runs.append(BlockRun(3 * block + level, block, {"norm": level}, {}, {}, {"norm": value}, False, {}))
    asked = question(levels=("none", "batch norm", "instance norm"))
    one, other = answers([asked], runs, looks=LOOKS)
    assert (one.level, one.verdict, other.level, other.verdict) == (1, Verdict.DIFFERENCE, 2, Verdict.NOT_ENOUGH)
    assert verdicts_of(answers([asked], runs, looks=LOOKS)) == {"norm": Verdict.NOT_ENOUGH}
    fewer = [run for run in runs if run.levels["norm"] < 2]
    two = replace(asked, levels=asked.levels[:2])
    assert verdicts_of(answers([two], fewer, looks=LOOKS)) == {"norm": Verdict.DIFFERENCE}
    assert Verdict.DIFFERENCE.clear
    assert not Verdict.NOT_ENOUGH.clear


# --- How often an answer is wrong; 2,000 runs and more worlds: tests/benchmarks/questions_coverage.py -----------------


def test_what_is_simulated_is_what_answers() -> None:
    random = np.random.default_rng(1)
    names = ("a", "b", "c")
    effects = (0.0, 0.15, 0.4)
    values = np.stack([planted_blocks("skewed effects", (4, 24), random, effect) for effect in effects], axis=1)
    simulated = follow(values, 24, np.array(effects))
    for run, of_run in enumerate(values):
        count = dict.fromkeys(names, 0)
        for look in LOOKS:  # each question goes on until it is decided
            runs = [r for n, b in zip(names, of_run, strict=True) for r in as_runs(n, b[: count[n] or look])]
            found = answers([question(name) for name in names], runs, looks=LOOKS)
            count |= {a.asked.name: look for a in found if a.verdict.clear and not count[a.asked.name]}
        assert [answer.look for answer in found] == simulated.blocks[run].tolist()
        assert [a.verdict is Verdict.DIFFERENCE for a in found] == simulated.differs[run].tolist()
        assert [a.verdict is Verdict.NO_PRACTICAL_EFFECT for a in found] == simulated.equal[run].tolist()


def test_intervals_hold_at_all_looks_together() -> None:
    found = looked_at("skewed effects", 24, 200, np.random.default_rng(2))  # six questions each
    assert 0.93 <= found["average at all looks"] <= 0.975
    assert found["average where it stopped"] >= 0.95
    assert found["tuned where it stopped"] >= 0.93


def test_without_any_effect_hardly_any_of_six_questions_claims_one() -> None:
    runs = 600
    found = no_effect("skewed effects", 24, runs, np.random.default_rng(3))
    assert found["any difference claimed"] <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)
    assert found["no practical effect"] > 0.4


def test_planted_effects_and_nulls_are_told_with_the_stated_power() -> None:
    runs = 300
    found = powered("an optimum that moves", 1.5, runs, np.random.default_rng(4))
    assert found["claimed"] >= 0.8 - 3 * np.sqrt(0.16 / runs)
    assert found["ratio (median)"] == pytest.approx(1.5, rel=0.05)
    found = powered("the same effect everywhere", 1.5, runs, np.random.default_rng(5))
    assert found["null: no practical effect"] == pytest.approx(found["predicted"], abs=0.06)
