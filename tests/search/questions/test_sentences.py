from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from planted_blocks import as_runs, question

from search.questions.answers import Answer, Effect, Verdict, answers
from search.questions.divergence import Divergences
from search.questions.sentences import effect_in_words, notes_of, sentence_of

QUIET = Divergences(neither=24, reference=0, level=0, both=0, p=1.0, worst_p=None, level_is_worse=False)


def answer(verdict: Verdict, average: Effect | None, asked: dict[str, Any] | None = None, **changes: Any) -> Answer:
    kept: dict[str, Any] = {
        "asked": question(**(asked or {})),
        "level": 1,
        "ended": 24,
        "look": 24,
        "next_look": 32,
        "verdict": verdict,
        "average": average,
        "typical": None,
        "tuned": None,
        "draws": 3,
        "p": 0.001,
        "holm": 0.001,
        "spread": 0.2,
        "divergences": QUIET,
        "divergence_holm": 1.0,
        "worst_holm": 1.0,
        "more": None,
    }
    return Answer(**(kept | changes))


@pytest.mark.parametrize(
    ("average", "sentence"),
    [
        (
            Effect(1.38, 1.26, 1.58, 24),
            "instance norm raises val/pixel_mse by 38 % against batch norm (95 % 26 to 58 %, 24 blocks).",
        ),
        (
            Effect(0.62, 0.5, 0.71, 20),
            "instance norm lowers val/pixel_mse by 38 % against batch norm (95 % 29 to 50 %, 20 blocks).",
        ),
        (
            Effect(4.2, 2.1, 8.8, 8),
            "instance norm multiplies val/pixel_mse by 4.2 against batch norm (95 % 2.1 to 8.8, 8 blocks).",
        ),
        (
            Effect(0.25, 0.125, 0.5, 8),
            "instance norm divides val/pixel_mse by 4 against batch norm (95 % 2 to 8, 8 blocks).",
        ),
        (
            Effect(1.38, 1.21, 1.58, 24),
            "instance norm raises val/pixel_mse by 38 % against batch norm (95 % 21 to 58 %, 24 blocks). It may be "
            "smaller than the ±25 % that matter.",
        ),
    ],
)
def test_a_difference_is_a_sentence(average: Effect, sentence: str) -> None:
    assert sentence_of(answer(Verdict.DIFFERENCE, average)) == sentence


def test_a_difference_of_slopes_is_a_sentence() -> None:
    slopes = {"scale": "difference", "smallest_effect": 0.1, "outcome": "val/kl", "across": True}
    assert sentence_of(answer(Verdict.DIFFERENCE, Effect(-0.32, -0.41, -0.21, 16), slopes)) == (
        "instance norm lowers the slope of log val/kl by 0.32 against batch norm (95 % 0.21 to 0.41, 16 blocks)."
    )


def test_no_practical_effect_says_within_what() -> None:
    assert sentence_of(answer(Verdict.NO_PRACTICAL_EFFECT, Effect(1.03, 0.96, 1.11, 24))) == (
        "instance norm has no practical effect on val/pixel_mse against batch norm (within ±25 %; 95 % -4 to +11 %, "
        "24 blocks)."
    )


def test_not_enough_evidence_says_what_would_tell() -> None:
    found = sentence_of(answer(Verdict.NOT_ENOUGH, Effect(1.1, 0.8, 1.5, 24), more=40))
    assert found == (
        "Not enough evidence on instance norm against batch norm: +10 % (95 % -20 to +50 %) after 24 blocks; 40 more "
        "blocks would tell."
    )
    alone = sentence_of(answer(Verdict.NOT_ENOUGH, Effect(1.1, 1.01, 1.2, 24), more=40, holm=0.098))
    assert alone.endswith(
        "+10 % (95 % +1 to +20 %) after 24 blocks, which alone would tell, but not over all questions together (Holm, "
        "p = 0.098); 40 more blocks would tell."
    )
    hopeless = sentence_of(answer(Verdict.NOT_ENOUGH, Effect(1.1, 0.2, 4.0, 24)))
    assert hopeless.endswith("+10 % (95 % ×0.2 to ×4) after 24 blocks; not even 400 more blocks would tell.")
    early = sentence_of(answer(Verdict.NOT_ENOUGH, None, look=0, ended=5, next_look=8))
    assert early.endswith(": 5 of the 8 blocks of the first look have ended.")
    gone = sentence_of(answer(Verdict.NOT_ENOUGH, None))
    assert gone.endswith(": hardly any of 24 blocks had both levels end.")


def test_notes_tell_of_the_tuned_effect_and_of_divergences() -> None:
    found = answer(
        Verdict.DIFFERENCE,
        Effect(1.38, 1.26, 1.58, 18),
        tuned=Effect(0.8, 0.7, 0.9, 24),
        divergences=Divergences(
            neither=18, reference=0, level=6, both=0, p=2 / 64, worst_p=0.0004, level_is_worse=True
        ),
        divergence_holm=0.04,
        worst_holm=0.0007,
    )
    assert notes_of(found) == [
        "Tuned (expected best of 3 draws for each level): -20 % (95 % -30 to -10 %), the other way than on average.",
        "6 of 24 blocks cannot tell: a level has no outcome there that can be compared.",
        "There is evidence that one diverges more often: instance norm in 6 of 24 blocks, batch norm in 0, both alike "
        "in 0 (exact McNemar test, p = 0.04).",
        "With to diverge as the worst outcome, instance norm is worse (sign flips of ranks, p < 0.001).",
    ]
    assert notes_of(answer(Verdict.DIFFERENCE, Effect(1.38, 1.26, 1.58, 24))) == []


def test_words_of_an_effect_have_its_sign() -> None:
    assert effect_in_words(question(), Effect(1.026, 0.994, 1.058, 8)) == "+2.6 % (95 % -0.6 to +5.8 %)"
    slope = question(scale="difference")
    assert effect_in_words(slope, Effect(-0.02, -0.11, 0.07, 8)) == "-0.02 (95 % -0.11 to +0.07)"


def test_every_planted_answer_has_a_sentence() -> None:
    random = np.random.default_rng(0)
    for effect in (-3.0, 0.0, 0.3, 3.0):
        blocks = np.stack([np.zeros(8), effect + random.normal(size=8)], axis=-1)
        for found in answers([question()], as_runs("norm", blocks), looks=(8,)):
            assert sentence_of(found).count("instance norm") == 1
            assert "nan" not in " ".join([sentence_of(found), *notes_of(found)])


def test_an_estimate_alone_is_not_the_other_way() -> None:
    [tuned] = notes_of(answer(Verdict.DIFFERENCE, Effect(1.38, 1.26, 1.58, 24), tuned=Effect(0.9, 0.7, 1.1, 24)))
    assert tuned == "Tuned (expected best of 3 draws for each level): -10 % (95 % -30 to +10 %)."


@pytest.mark.parametrize(
    ("average", "sentence"),
    [
        (
            Effect(1.0, 0.95, 1.05, 10),
            "batch norm diverges more often than instance norm in 14 of 24 blocks, less often in 1; where both end, "
            "there is no practical effect on val/pixel_mse (within ±25 %; 95 % -5 to +5 %, 10 blocks).",
        ),
        (
            None,
            "batch norm diverges more often than instance norm in 14 of 24 blocks, less often in 1; nothing else can "
            "be compared.",
        ),
    ],
)
def test_divergence_is_the_answer_where_there_is_no_other(average: Effect | None, sentence: str) -> None:
    counts = Divergences(neither=9, reference=14, level=1, both=0, p=0.001, worst_p=0.001, level_is_worse=False)
    assert sentence_of(answer(Verdict.DIVERGENCE, average, divergences=counts)) == sentence


@pytest.mark.parametrize(("scale", "effect"), [("ratio", (1.1, 0.0, np.inf)), ("difference", (0.17, -np.inf, np.inf))])
def test_an_interval_without_ends_is_none(scale: str, effect: tuple[float, float, float]) -> None:
    estimate = {"ratio": "+10 %", "difference": "+0.17"}[scale]
    assert effect_in_words(question(scale=scale), Effect(*effect, 8)) == (
        f"{estimate} (8 blocks are too few for an interval)"
    )
