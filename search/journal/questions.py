"""The questions of a sweep as they were registered: text, hash and time, before the first trial that answers them.

A question whose text changes is a new question with trials of its own; the old one keeps its place in the record.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from search.config.design import Group, groups
from search.config.questions import QuestionConfig
from search.config.sweep import Sweep
from search.journal.journal import Journal
from search.journal.meta import Meta


@dataclass(frozen=True)
class Registered:
    """A question, as it was registered."""

    name: str
    """Unique in the sweep: that of the YAML, with a number where its text has changed since."""
    given: str
    """Name in the YAML."""
    hash: str
    time: float
    """Unix time."""
    group: int
    """Those that share trials have the same."""
    looks: tuple[int, int]
    """Blocks after which it was to be looked at first, and last."""
    text: dict[str, Any]

    @property
    def question(self) -> QuestionConfig:
        return QuestionConfig.model_validate(self.text)

    def is_asked(self, sweep: Sweep) -> bool:
        """Whether the sweep's YAML still asks it."""
        question = sweep.config.questions.get(self.given)
        return question is not None and question.hash == self.hash


def registered(journal: Journal) -> list[Registered]:
    """Every question that was ever registered, in order."""
    return [Registered(**record) for record in json.loads(journal.meta(Meta.QUESTIONS, "[]"))]


def register(sweep: Sweep, journal: Journal) -> list[Registered]:
    """Registers the questions of the sweep that are new; returns those that were. Again, it changes nothing."""
    with journal.transaction():
        before = registered(journal)
        known = {(each.given, each.hash) for each in before}
        new = {
            _free_name(name, before): (name, question)
            for name, question in sweep.config.questions.items()
            if (name, question.hash) not in known
        }
        if not new:
            return []
        looks = (sweep.config.blocks.at_least, sweep.config.blocks.at_most)
        first, now = 1 + max((each.group for each in before), default=-1), time.time()
        together = groups(sweep.setup, {label: question for label, (_, question) in new.items()})
        group_of = {label: first + index for index, group in enumerate(together) for label in group.questions}
        added = [
            Registered(label, name, question.hash, now, group_of[label], looks, question.text)
            for label, (name, question) in new.items()
        ]
        journal.set_meta(Meta.QUESTIONS, json.dumps([asdict(each) for each in before + added]))
    return added


def _free_name(name: str, before: list[Registered]) -> str:
    times = sum(each.given == name for each in before)
    return f"{name} ({times + 1})" if times else name


def groups_of(sweep: Sweep, questions: list[Registered]) -> Iterator[tuple[int, Group]]:
    """(number, questions) of those that share trials, in order."""
    together: dict[int, dict[str, QuestionConfig]] = {}
    for each in questions:
        together.setdefault(each.group, {})[each.name] = each.question
    for number, members in together.items():
        yield number, Group(sweep.setup, members)
