"""What must hold between the questions of a sweep and the rest of it: the base, the space, the budget."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from search.config.design import Setup, problems_of_question
from search.config.problems import problems_of_comparison
from search.config.questions import BlocksConfig, QuestionConfig, SlopeConfig
from search.config.space import Space
from search.config.sweep_config import BudgetConfig
from search.config.trial_fields import annotation_of
from vaegan_core.config.training import EvaluateConfig
from vaegan_core.config.trial import TrialConfig
from vaegan_core.problems import Problem, Rule, key_names, rule, valid_parts
from vaegan_core.spelling import right_key

RULES: list[Rule] = []

Questions = Mapping[str, QuestionConfig]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
OF_THE_BLOCK = ("train.seed", "train.seeding")
"""Settings that all trials of a block share."""
FEWEST_POINTS = 3
"""Validations in the last half of a trial that a slope is fitted to, at least."""


def parts_of_questions(raw: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """What rules need of the questions, and the problems found in each by itself."""
    found = {name: valid_parts(QuestionConfig, data) for name, data in raw.items()}
    readable = {name: QuestionConfig.model_construct(**fields) for name, (fields, wrong) in found.items() if not wrong}
    settings = [
        (f"questions.{name}.{part}.{setting}", setting)
        for name, (fields, _) in found.items()
        for part in ("factor", "across", "crossed")
        for setting in fields.get(part, ())
    ]
    problems = [
        (f"questions.{name}.{path}".rstrip("."), message)
        for name, (_, wrong) in found.items()
        for path, message in wrong
    ]
    return {"readable questions": readable, "settings of questions": settings}, problems


@rule(RULES, "readable questions")
def _names_can_be_shown(questions: Questions) -> Iterator[Problem]:
    for name in questions:
        if not NAME.fullmatch(name):
            rule = "must be named with 1 to 60 letters, digits, '.', '_' and '-', beginning with a letter or digit"
            yield f"questions.{name}", f"{rule}, but got {name!r}"


@rule(RULES, "settings of questions")
def _settings_exist(settings: Iterable[tuple[str, str]]) -> Iterator[Problem]:
    for where, setting in settings:
        if annotation_of(setting) is None:
            meant = right_key(setting, key_names(TrialConfig))
            yield where, f"there is no such setting of a trial: {setting}{meant}"
        elif setting in OF_THE_BLOCK:
            yield where, "must be the same in all trials of a block, because levels are compared on the same seed"
        else:
            parent = where.removesuffix(f".{setting}")
            yield from problems_of_comparison(parent, [setting])


@rule(RULES, "readable questions", "base", "whole space", "blocks")
def _levels_are_trials(
    questions: Questions, base: Mapping[str, Any], space: Space, blocks: BlocksConfig
) -> Iterator[Problem]:
    setup = Setup(base, space, blocks)
    if setup.problems(0, 0, {}):  # what is wrong without any question is said elsewhere
        return
    for name, question in questions.items():
        if all(annotation_of(setting) is not None for setting in question.settings()):
            yield from problems_of_question(setup, name, question)


@rule(RULES, "readable questions", "blocks", "base.train.steps", "base.evaluate")
def _slopes_have_points(
    questions: Questions, blocks: BlocksConfig, steps: int, evaluate: EvaluateConfig
) -> Iterator[Problem]:
    last = blocks.steps or steps
    at = {*range(evaluate.every, last + 1, evaluate.every), *evaluate.also_at, last}
    points = sum(last / 2 <= step <= last for step in at)
    for name, question in questions.items():
        if isinstance(question.outcome, SlopeConfig) and points < FEWEST_POINTS:
            yield (
                f"questions.{name}.outcome",
                f"is a slope over the last half of {last} steps, which must have {FEWEST_POINTS} validations at least, "
                f"but has {points}; set base.evaluate.every or base.evaluate.also_at",
            )


@rule(RULES, "questions", "budget")
def _something_is_run(questions: Questions, budget: BudgetConfig) -> Iterator[Problem]:
    if not questions and not budget.trials:
        yield "budget.trials", "must be at least 1 in a sweep without questions, but got 0"
