"""How far the blocks of a sweep's questions have come, what they say so far, and which trials they need next.

All questions are looked at together, after the same number of blocks, once every trial of these has ended: so what runs
next depends on outcomes alone, not on when they came in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from search.config.design import BlockTrial
from search.config.questions import QuestionConfig, SlopeConfig
from search.config.sweep import Sweep
from search.journal.journal import Journal
from search.journal.questions import Registered, groups_of, registered
from search.journal.records import TrialRecord
from search.names import UNFINISHED_OUTCOMES, Outcome
from search.questions.answers import Answer, Verdict, answers, verdicts_of
from search.questions.blocks import Asked, BlockRun, crossed_of
from search.questions.growth import growth
from search.questions.looks import looks_until, planned_looks
from search.terminal import counted


def asked_of(each: Registered) -> Asked:
    """A registered question, as its answer needs it."""
    question = each.question
    return Asked(
        name=each.name,
        outcome=question.outcome_in_words,
        levels=question.level_names,
        smallest_effect=question.smallest_effect,
        scale=question.scale,
        across=bool(question.across),
    )


def outcome_of(question: QuestionConfig, evaluations: Mapping[int, Mapping[str, float]]) -> float:
    """A completed trial's outcome, by its validation metrics by step; NaN where it has none."""
    if isinstance(question.outcome, SlopeConfig):
        key = question.outcome.slope
        return growth((step, metrics[key]) for step, metrics in evaluations.items() if key in metrics)
    return evaluations.get(max(evaluations, default=0), {}).get(question.outcome, math.nan)


class Look(NamedTuple):
    """Where the blocks stand."""

    blocks: int
    """Blocks of each question after which it is looked at next, or was looked at last."""
    running: list[int]
    """Groups of questions that come so far; the others are answered, or over."""


class Blocks:
    """The blocks of a sweep whose questions are registered. Whoever adds a trial of theirs calls `add`."""

    def __init__(self, sweep: Sweep, journal: Journal) -> None:
        self.sweep = sweep
        self.journal = journal
        self.questions = registered(journal)
        self.asked = [each for each in self.questions if each.is_asked(sweep)]
        still = {each.group for each in self.asked}
        self._all_groups = dict(groups_of(sweep, self.questions))
        self.groups = {number: group for number, group in self._all_groups.items() if number in still}
        self._begun = journal.begun_in_groups()
        self._verdicts: dict[tuple[tuple[int, int], ...], dict[str, Verdict]] = {}
        self._trials: dict[tuple[int, int], list[BlockTrial]] = {}

    @property
    def looks(self) -> tuple[int, ...]:
        """Numbers of blocks after which the questions are looked at, as planned when the first was registered."""
        return planned_looks(*self.questions[0].looks)

    # --- What comes next ----------------------------------------------------------------------------------------------

    def next(self) -> tuple[int, BlockTrial] | None:
        """(group, trial) to add next; None while there is none, or when there will be no more."""
        open_ = self._open()
        if not open_:
            return None
        number = min(open_, key=lambda each: (self._begun.get(each, 0) / self.groups[each].size, each))
        block, index = divmod(self._begun.get(number, 0), self.groups[number].size)
        if (number, block) not in self._trials:
            self._trials = {place: t for place, t in self._trials.items() if place[0] != number}
            self._trials[number, block] = self.groups[number].trials(block)
        return number, self._trials[number, block][index]

    def add(self, group: int) -> None:
        """Counts a trial that was added to the journal."""
        self._begun[group] = self._begun.get(group, 0) + 1

    @property
    def begun(self) -> int:
        """Number of trials of blocks in the journal."""
        return sum(self._begun.values())

    @property
    def to_come(self) -> int:
        """Trials that are missing from the blocks up to the look that has been begun, in each group of questions."""
        return sum(
            min(look for look in self._all_looks() if look * group.size >= self._begun.get(number, 0)) * group.size
            - self._begun.get(number, 0)
            for number, group in self.groups.items()
        )

    def _all_looks(self) -> list[int]:
        """Numbers of blocks after which the questions are looked at, and those that are there at the end."""
        most = self.sweep.config.blocks.at_most
        begun = max((-(-self._begun.get(number, 0) // group.size) for number, group in self.groups.items()), default=0)
        planned = [look for look in looks_until(self.looks, most) if look < most]
        return [*planned, most, *([begun] if begun > most else [])]

    @property
    def left(self) -> bool:
        """Whether there are trials to add now."""
        return bool(self._open())

    def _open(self) -> list[int]:
        look = self.look()
        return [
            number for number in look.running if self._begun.get(number, 0) < look.blocks * self.groups[number].size
        ]

    def look(self) -> Look:
        """The next look at the questions, or the last one with no group running."""
        running = list(self.groups)
        if not running:
            return Look(0, [])
        most = self.sweep.config.blocks.at_most
        asked_for: dict[int, int] = {}
        for blocks in (each for each in self._all_looks() if each < most):
            full = all(self._begun.get(number, 0) >= blocks * self.groups[number].size for number in running)
            if not full or self.journal.unfinished_in_blocks(blocks):
                return Look(blocks, running)
            asked_for |= dict.fromkeys(running, blocks)
            verdicts = self._decided(asked_for)
            running = [number for number in self.groups if self._is_open(number, verdicts)]
            if not running:
                return Look(blocks, [])
        return Look(most, running)

    def _is_open(self, number: int, verdicts: Mapping[str, Verdict]) -> bool:
        """Whether a question of a group has no clear answer, or none any more, because others changed (Holm)."""
        return any(not verdicts[each.name].clear for each in self.asked if each.group == number)

    def _decided(self, asked_for: Mapping[int, int]) -> dict[str, Verdict]:
        """Verdicts at a look, by the blocks that each group of questions had been asked for until then: what a group
        got later does not count, so that a resumed sweep decides as the first driver did."""
        key = tuple(sorted(asked_for.items()))
        if key not in self._verdicts:
            group = {each.name: each.group for each in self.questions}
            runs = [run for run in self.runs() if run.block < asked_for.get(group[next(iter(run.levels))], math.inf)]
            judged = [asked_of(each) for each in self.judged]
            self._verdicts[key] = verdicts_of(answers(judged, runs, looks=self.looks))
        return self._verdicts[key]

    # --- What was found -----------------------------------------------------------------------------------------------

    @property
    def judged(self) -> list[Registered]:
        """The questions that are judged together: those that are asked, and those that were looked at before they were
        taken out, for who may choose what to leave out afterwards would find more than there is."""
        ended = self._ended()
        return [
            each
            for each in self.questions
            if each in self.asked or len(ended.get(each.group, {})) >= self.questions[0].looks[0]
        ]

    def done(self) -> dict[str, int]:
        """Blocks whose trials have all ended, by question that is asked."""
        ended = self._ended()
        return {each.name: len(ended.get(each.group, {})) for each in self.asked}

    def ahead(self) -> dict[str, int]:
        """Blocks after which it is looked at next, by question that is asked; 0 where no more come."""
        look = self.look()
        return {each.name: look.blocks if each.group in look.running else 0 for each in self.asked}

    @property
    def over(self) -> bool:
        """Whether every block that was to come has ended."""
        ahead = self.ahead()
        return all(ahead[name] <= count for name, count in self.done().items())

    def answers(self) -> list[Answer]:
        """What the blocks say of each question that is asked."""
        judged = [asked_of(each) for each in self.judged]
        mine = {each.name for each in self.asked}
        found = answers(judged, self.runs(), looks=self.looks, over=self.over)
        return [answer for answer in found if answer.asked.name in mine]

    def runs(self) -> list[BlockRun]:
        """The ended trials of blocks in which every trial has ended; those that failed tell nothing."""
        by_name = {each.name: each.question for each in self.questions}
        runs = []
        for number, blocks in self._ended().items():
            nuisances = self._all_groups[number].nuisances
            trials = [trial for members in blocks.values() for trial in members]
            runs += [
                self._run(trial, by_name, nuisances)
                for trial in trials
                if trial.outcome in (Outcome.COMPLETED, Outcome.DIVERGED)
            ]
        return sorted(runs, key=lambda run: run.number)

    def _run(self, trial: TrialRecord, questions: Mapping[str, QuestionConfig], nuisances: Sequence[str]) -> BlockRun:
        assert trial.block is not None
        evaluations = self.journal.evaluations(trial.number) if trial.outcome == Outcome.COMPLETED else {}
        return BlockRun(
            number=trial.number,
            block=trial.block.block,
            levels=trial.block.levels,
            across=trial.block.across,
            crossed=crossed_of({name: [*questions[name].crossed] for name in trial.block.levels}, trial.params),
            outcomes={name: outcome_of(questions[name], evaluations) for name in trial.block.levels},
            diverged=trial.outcome == Outcome.DIVERGED,
            nuisances={name: trial.params.get(name) for name in nuisances},
        )

    def _ended(self) -> dict[int, dict[int, list[TrialRecord]]]:
        """The trials of blocks in which every trial has ended, by group and block."""
        found: dict[int, dict[int, list[TrialRecord]]] = {}
        for trial in self.journal.block_trials():
            if trial.block is not None:
                found.setdefault(trial.block.group, {}).setdefault(trial.block.block, []).append(trial)
        return {
            number: {
                block: members
                for block, members in blocks.items()
                if len(members) == self._all_groups[number].size
                and not any(trial.outcome in UNFINISHED_OUTCOMES for trial in members)
            }
            for number, blocks in found.items()
        }


class Standing(NamedTuple):
    """Where one question stands."""

    name: str
    done: int
    """Blocks whose trials have all ended."""
    look: int
    """Blocks after which it is looked at next; as many as are done where no more come."""
    at_most: int
    verdict: Verdict
    """What may be said now."""

    @property
    def is_open(self) -> bool:
        """Whether more blocks are to come."""
        return self.done < self.look

    def in_words(self) -> str:
        done = counted(self.done, "block")
        come = f"the next look is at {self.look}, of {self.at_most} at most" if self.is_open else "no more come"
        return f"{self.name}: {done} done, {come}; {self.verdict}"


def standing(sweep: Sweep, journal: Journal) -> list[Standing]:
    """Where each question that the sweep asks stands."""
    blocks = Blocks(sweep, journal)
    if not blocks.asked:
        return []
    done, ahead, verdicts = blocks.done(), blocks.ahead(), verdicts_of(blocks.answers())
    return [
        Standing(name, count, max(ahead[name], count), sweep.config.blocks.at_most, verdicts[name])
        for name, count in done.items()
    ]
