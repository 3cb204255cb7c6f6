"""What a sweep's questions take: blocks, trials and hours for a power of 80 %, and what the budget can see."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field

from search.config.questions import QuestionConfig
from search.config.sweep import Sweep
from search.journal.journal import Journal
from search.journal.sweeps import directory_of, exists, fatal_differences, open_sweep
from search.names import Outcome
from search.paths import JOURNAL_FILE
from search.questions.answers import answers
from search.questions.looks import BATCH, Plan
from search.questions.power import blocks_needed, chance_of_none, effect_seen
from search.standings.blocks import Blocks, asked_of
from search.terminal import counted

USUAL_SPREAD = 0.35
"""Standard deviation of a block's log ratio of sample distances between two levels, as measured on models of the small
size at least; of pixel errors it was .13."""
PER_CENT = 1.995
"""Ratio from which on a factor says more than a percentage."""


@dataclass(frozen=True)
class Pilot:
    """What the sweep itself has measured, if it was begun."""

    spreads: dict[str, float] = field(default_factory=dict)
    """Standard deviation of one block's effect, by question; the largest of its levels."""
    blocks: dict[str, int] = field(default_factory=dict)
    """Blocks that it is from, by question."""
    trial_hours: float | None = None
    """Mean time of a block's trial; None before one has ended."""
    plan: Plan | None = None
    """When it was registered to be looked at; None before it was begun."""


def read_pilot(sweep: Sweep) -> Pilot:
    """What is known from the sweep of that name, as far as it asks the same questions; nothing of another sweep."""
    directory = directory_of(sweep.config.name)
    if not (sweep.config.questions and exists(directory)) or fatal_differences(open_sweep(sweep.config.name)[0], sweep):
        return Pilot()
    journal = Journal(directory / JOURNAL_FILE)
    try:
        blocks = Blocks(sweep, journal)
        if not blocks.asked:
            return Pilot()
        given = {each.name: each.given for each in blocks.asked}
        asked, done = [asked_of(each) for each in blocks.asked], blocks.done()
        spreads: dict[str, float] = {}
        for answer in answers(asked, blocks.runs(), looks=blocks.looks, over=True):
            if answer.spread:
                name = given[answer.asked.name]
                spreads[name] = max(answer.spread, spreads.get(name, 0.0))
        plan = Plan(*blocks.questions[0].looks)
        return Pilot(spreads, {given[name]: count for name, count in done.items()}, _mean_hours(journal), plan)
    finally:
        journal.close()


def _mean_hours(journal: Journal) -> float | None:
    ended = [trial.number for trial in journal.block_trials() if trial.outcome == Outcome.COMPLETED]
    spent = [
        sum((attempt.ended or attempt.started) - attempt.started for attempt in journal.attempts(number)) / 3600
        for number in ended
    ]
    return statistics.fmean(spent) if spent else None


def questions_in_words(sweep: Sweep, pilot: Pilot) -> Iterator[str]:
    """Yields lines for people; none where nothing is asked."""
    questions, blocks = sweep.config.questions, sweep.config.blocks
    if not questions:
        return
    size = sweep.trials_of_block
    yield (
        f"{counted(len(questions), 'question')}, in blocks of {counted(size, 'trial')} of "
        f"{counted(sweep.block_steps, 'step')} each: {_shared(sweep)}."
    )
    least, most = (_cost(sweep, pilot, count * size) for count in (blocks.at_least, blocks.at_most))
    yield (
        f"The answers are looked at after {blocks.at_least} blocks ({least}), then every {BATCH} more, up to "
        f"{blocks.at_most} ({most})."
    )
    tests = sum(question.num_levels - 1 for question in questions.values())
    for name, question in questions.items():
        yield f"  {name}: {_asks(question)}; {_power(sweep, name, pilot, tests)}"


def _shared(sweep: Sweep) -> str:
    return "; ".join(
        f"{group.size} for {', '.join(group.questions)}{' together' if len(group.questions) > 1 else ''}"
        for group in sweep.groups
    )


def _cost(sweep: Sweep, pilot: Pilot, trials: int) -> str:
    told = counted(trials, "trial")
    if pilot.trial_hours is None:
        return told
    at_once = sweep.config.resources.max_concurrent
    hours = trials * pilot.trial_hours / (at_once or 1)
    return f"{told}, {hours:.1f} hours{'' if at_once else ' of trials'}"


def _asks(question: QuestionConfig) -> str:
    reference, *others = question.level_names
    across = f", its slope over {next(iter(question.across))}" if question.across else ""
    return f"{' or '.join(others)} against {reference}, on {question.outcome_in_words}{across}"


def _power(sweep: Sweep, name: str, pilot: Pilot, tests: int) -> str:
    """What it takes to see the smallest effect that matters, and what the most blocks see."""
    question, most = sweep.config.questions[name], sweep.config.blocks.at_most
    spread, source = _spread(question, name, pilot)
    if spread is None:
        return f"no forecast, because nothing is known of its spread; give questions.{name}.spread, or run some blocks"
    ratio = question.scale == "ratio"
    smallest = question.smallest_effect if ratio else math.exp(question.smallest_effect)
    plan = pilot.plan or Plan(sweep.config.blocks.at_least, most)
    seen = effect_seen(spread, most, tests, plan=plan)
    effect = effect_in_words(question, question.smallest_effect)
    try:
        needed = blocks_needed(spread, smallest, tests, plan=plan)
        if needed > most and pilot.plan is None:  # as many would be planned
            needed = max(most + 1, blocks_needed(spread, smallest, tests, plan=Plan(plan.least)))
    except ValueError:
        return f"{effect} cannot be seen at a spread of {spread:.2g} ({source})"
    size = next(group.size for group in sweep.groups if name in group.questions)
    trials = _cost(sweep, pilot, needed * size)
    able = effect_in_words(question, seen if ratio else math.log(seen))
    return (
        f"{effect} is seen with a power of 80 % after {needed} blocks ({trials}) at a spread of {spread:.2g} "
        f"({source}); {most} blocks see {able}, and where there is none they say so in "
        f"{100 * chance_of_none(spread, smallest, most, plan=plan):.0f} % of cases"
    )


def _spread(question: QuestionConfig, name: str, pilot: Pilot) -> tuple[float | None, str]:
    """Spread of a block's effect, and where it is from: what was measured, what the file says, or what is usual."""
    if name in pilot.spreads:
        return pilot.spreads[name], f"measured in {counted(pilot.blocks[name], 'block')}"
    if question.spread is not None:
        return question.spread, "as the file guesses"
    return (USUAL_SPREAD, "a guess") if question.scale == "ratio" else (None, "")


def effect_in_words(question: QuestionConfig, effect: float) -> str:
    """As in "an effect of 25 %"."""
    if question.scale == "difference":
        return f"a difference of {effect:.2g}"
    return f"an effect of {100 * (effect - 1):.0f} %" if effect < PER_CENT else f"an effect of {effect:.2g} times"
