"""An answer in plain sentences."""

from __future__ import annotations

import math

from search.questions.answers import Answer, Effect, Verdict
from search.questions.blocks import Asked
from search.questions.looks import LEVEL
from search.questions.power import MOST_MORE

SURE = f"{100 * (1 - LEVEL):.0f} %"
LARGE = 3.0
"""A ratio from which people say "fourfold" rather than "by 300 %"."""


def sentence_of(answer: Answer) -> str:
    """The answer itself: what the level does to the outcome, that it does nothing that matters, or what would tell."""
    asked, average = answer.asked, answer.average
    level, outcome = asked.levels[answer.level], outcome_of(asked)
    if answer.verdict is Verdict.DIVERGENCE:
        return f"{_diverges(answer)}{_elsewhere(answer)}."
    if average is None or answer.verdict is Verdict.NOT_ENOUGH:
        return f"Not enough evidence on {level} against {asked.levels[0]}: {_would_tell(answer)}."
    if answer.verdict is Verdict.NO_PRACTICAL_EFFECT:
        found = f"within {_smallest(asked)}; {SURE} {_range(asked, average)}, {_blocks(average)}"
        return f"{level} has no practical effect on {outcome} against {asked.levels[0]} ({found})."
    does, ends = _does(asked, average)
    told = f"{level} {does.format(outcome)} against {asked.levels[0]} ({SURE} {ends}, {_blocks(average)})."
    return (
        f"{told} It may be smaller than the {_smallest(asked)} that matter." if _may_be_small(asked, average) else told
    )


def notes_of(answer: Answer) -> list[str]:
    """What else has to be known: the tuned estimand, blocks that could not tell, divergences."""
    return [*_about_tuned(answer), *_about_missing(answer), *_about_divergences(answer)]


def outcome_of(asked: Asked) -> str:
    """What the effect is on."""
    return f"the slope of log {asked.outcome}" if asked.across else asked.outcome


def effect_in_words(asked: Asked, effect: Effect) -> str:
    """As in "+38 % (95 % +21 to +58 %)"; without an interval where there are too few blocks for one."""
    if math.isinf(effect.high) and (math.isinf(effect.low) or not effect.low):
        return f"{signed(asked, effect.estimate)} ({_blocks(effect)} are too few for an interval)"
    return f"{signed(asked, effect.estimate)} ({SURE} {_range(asked, effect)})"


def _does(asked: Asked, effect: Effect) -> tuple[str, str]:
    """As in ("raises {} by 38 %", "21 to 58 %")."""
    low, middle, high = effect.low, effect.estimate, effect.high
    if asked.scale == "difference":
        if middle >= 0:
            return f"raises {{}} by {middle:.2g}", f"{low:.2g} to {high:.2g}"
        return f"lowers {{}} by {-middle:.2g}", f"{-high:.2g} to {-low:.2g}"
    if middle >= LARGE:
        return f"multiplies {{}} by {middle:.2g}", f"{low:.2g} to {high:.2g}"
    if middle <= 1 / LARGE:
        return f"divides {{}} by {1 / middle:.2g}", f"{1 / high:.2g} to {1 / low:.2g}"
    if middle >= 1:
        return f"raises {{}} by {_percent(middle)} %", f"{_percent(low)} to {_percent(high)} %"
    return f"lowers {{}} by {-_percent(middle)} %", f"{-_percent(high)} to {-_percent(low)} %"


def _percent(ratio: float) -> int | float:
    change = 100 * (ratio - 1)
    return round(change) if abs(change) >= 9.5 else float(f"{change:.1f}") + 0.0


def signed(asked: Asked, value: float) -> str:
    """An effect as in "+38 %", "×4.2" or "-0.3"."""
    if asked.scale == "difference":
        return f"{value:+.2g}"
    return f"×{value:.2g}" if _is_large(value) else f"{_percent(value):+g} %"


def _is_large(ratio: float) -> bool:
    return not 1 / LARGE < ratio < LARGE


def _range(asked: Asked, effect: Effect) -> str:
    low, high = effect.low, effect.high
    if asked.scale == "ratio" and (_is_large(low) or _is_large(high)):
        return f"×{low:.2g} to ×{high:.2g}"
    return f"{signed(asked, low).removesuffix(' %')} to {signed(asked, high)}"


def _diverges(answer: Answer) -> str:
    """Which level diverges more often than which, and in how many blocks."""
    found, (reference, level) = answer.divergences, (answer.asked.levels[0], answer.asked.levels[answer.level])
    (more, often), (less, seldom) = sorted(((reference, found.reference), (level, found.level)), key=lambda e: -e[1])
    return f"{more} diverges more often than {less} in {often} of {answer.look} blocks, less often in {seldom}"


def _elsewhere(answer: Answer) -> str:
    """What may be said of the blocks in which both levels end."""
    asked, average = answer.asked, answer.average
    if average is None:
        return "; nothing else can be compared"
    found = f"within {_smallest(asked)}; {SURE} {_range(asked, average)}, {_blocks(average)}"
    return f"; where both end, there is no practical effect on {outcome_of(asked)} ({found})"


def _smallest(asked: Asked) -> str:
    """The smallest effect that anybody cares about; as a percentage it means that ratio either way."""
    if asked.scale == "difference":
        return f"±{asked.smallest_effect:.2g}"
    return f"±{_percent(asked.smallest_effect):g} %"


def _may_be_small(asked: Asked, effect: Effect) -> bool:
    if asked.scale == "difference":
        return min(abs(effect.low), abs(effect.high)) < asked.smallest_effect
    return min(abs(math.log(effect.low)), abs(math.log(effect.high))) < math.log(asked.smallest_effect)


def _blocks(effect: Effect) -> str:
    return f"{effect.blocks} block{'' if effect.blocks == 1 else 's'}"


def _would_tell(answer: Answer) -> str:
    """What is known so far, and what it would take."""
    if answer.look == 0:
        return f"{answer.ended} of the {answer.next_look} blocks of the first look have ended"
    if answer.average is None:
        return f"hardly any of {answer.look} blocks had both levels end"
    so_far = f"{effect_in_words(answer.asked, answer.average)} after {_blocks(answer.average)}"
    if _side(answer.asked, answer.average):
        so_far += f", which alone would tell, but not over all questions together (Holm, p {_p(answer.holm)})"
    if answer.more is None:
        return f"{so_far}; not even {MOST_MORE} more blocks would tell"
    return f"{so_far}; {answer.more} more blocks would tell"


def _about_tuned(answer: Answer) -> list[str]:
    asked, tuned, average = answer.asked, answer.tuned, answer.average
    if tuned is None:
        return []
    opposite = average is not None and _side(asked, tuned) * _side(asked, average) < 0
    otherwise = ", the other way than on average" if opposite else ""
    return [
        f"Tuned (expected best of {answer.draws} draws for each level): {effect_in_words(asked, tuned)}{otherwise}."
    ]


def _side(asked: Asked, effect: Effect) -> int:
    """1 or -1: which way the whole interval lies; 0 where it has no effect in it."""
    none = 1.0 if asked.scale == "ratio" else 0.0
    return (effect.low > none) - (effect.high < none)


def _about_missing(answer: Answer) -> list[str]:
    missing = answer.look - answer.average.blocks if answer.average else 0
    told = f"{missing} of {answer.look} blocks cannot tell: a level has no outcome there that can be compared."
    return [told] if missing else []


def _about_divergences(answer: Answer) -> list[str]:
    found, asked = answer.divergences, answer.asked
    if not found.reference + found.level + found.both:
        return []
    told = "" if answer.divergence_holm <= LEVEL else "no "
    level, reference = asked.levels[answer.level], asked.levels[0]
    counts = f"{level} in {found.level} of {answer.look} blocks, {reference} in {found.reference}"
    test = f"both alike in {found.both} (exact McNemar test, p {_p(answer.divergence_holm)})"
    said = f"There is {told}evidence that one diverges more often: {counts}, {test}."
    if found.worst_p is None:
        return [said]
    worse = level if found.level_is_worse else reference
    told = f"{worse} is worse" if answer.worst_holm <= LEVEL else "there is no evidence that one is worse"
    return [said, f"With to diverge as the worst outcome, {told} (sign flips of ranks, p {_p(answer.worst_holm)})."]


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.2g}"
