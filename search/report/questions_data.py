"""What the page draws of each question: effects, blocks, expected best, curves by level, and which pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from mlflow import MlflowClient

from search.questions.answers import Effect
from search.questions.blocks import BlockRun
from search.questions.intervals import expected_best
from search.questions.moderators import strongest
from search.questions.sentences import effect_in_words, outcome_of
from search.report.answered import Answered
from search.report.page_data import axis, short
from search.report.pictures import read_sprites, spread
from search.report.reported import Reported
from search.report.searched import searched

BLOCKS_SHOWN = 6
"""Blocks of a question that have pictures, evenly spread."""
BUDGET = 2_000_000
"""Bytes of the pictures of all questions of a page."""
QUARTILES = (0.25, 0.5, 0.75)


def questions_of(client: MlflowClient, reported: Reported, budget: int) -> dict[str, Any]:
    """The questions, and the pictures that their contact sheets show, by trial number and kind."""
    sheets = [_sheet(each) for each in reported.answered]
    numbers = {number for sheet in sheets for row in sheet["trials"] for number in row if number is not None}
    trials = {trial.number: trial for each in reported.answered for trial in each.trials}
    pictures = read_sprites(client, [trials[number] for number in sorted(numbers)], budget, steps=1)
    questions = [
        _question(reported, each) | {"sheet": sheet} for each, sheet in zip(reported.answered, sheets, strict=True)
    ]
    return {"questions": questions, "question_pictures": pictures}


def _question(reported: Reported, each: Answered) -> dict[str, Any]:
    asked, contrasts = each.question.asked, each.contrasts
    nuisances = _nuisances(each)
    effects = contrasts.effects[:, 0]
    found = strongest(
        {name: [values.get(block) for block in contrasts.blocks.tolist()] for name, values in nuisances.items()},
        effects,
    )
    natural = np.exp if asked.scale == "ratio" else np.asarray
    return {
        "name": asked.name,
        "outcome": outcome_of(asked),
        "levels": list(asked.levels),
        "ratio": asked.scale == "ratio",
        "smallest": asked.smallest_effect,
        "effects": [
            {
                "level": answer.level,
                "verdict": answer.verdict,
                "average": _ends(answer.average),
                "typical": _ends(answer.typical),
                "tuned": _ends(answer.tuned),
                "draws": answer.draws,
                "words": effect_in_words(asked, answer.average) if answer.average else "",
            }
            for answer in each.answers
        ],
        "blocks": contrasts.blocks.tolist(),
        "values": [_shorts(natural(column)) for column in contrasts.values.T],
        "contrasts": [_shorts(natural(column)) for column in contrasts.effects.T],
        "nuisances": _axes(reported, each),
        "strongest": {"key": found.name, "p": short(found.p)} if found else None,
        "best": _best(each),
        "curves": {"metric": each.question.metric, "levels": _curves(reported, each)},
    }


def _shorts(values: np.ndarray) -> list[float | None]:
    return [short(float(value)) for value in values]


def _ends(effect: Effect | None) -> list[float | None] | None:
    return [short(effect.estimate), short(effect.low), short(effect.high)] if effect else None


def _nuisances(each: Answered) -> dict[str, dict[int, Any]]:
    """Values by name and block."""
    found: dict[str, dict[int, Any]] = {name: {} for name in each.question.nuisances}
    for run in each.runs:
        for name, of_block in found.items():
            if run.nuisances.get(name) is not None:  # a trial of another branch has none
                of_block[run.block] = run.nuisances[name]
    return found


def _axes(reported: Reported, each: Answered) -> list[dict[str, Any]]:
    """The nuisances as the page's other figures have parameters, with a value for each block."""
    of_block: dict[int, list[BlockRun]] = {block: [] for block in each.contrasts.blocks.tolist()}
    for run in each.runs:
        of_block[run.block].append(run)
    found = []
    for parameter in searched(replace(reported.sweep, trials=each.trials), reported.plan):
        name = parameter.name
        if name in each.question.nuisances:  # which trials of another branch have not
            first = [max(runs, key=lambda run: run.nuisances.get(name) is not None) for runs in of_block.values()]
            found.append({"key": name, **axis(parameter, [run.number for run in first])})
    return found


def _best(each: Answered) -> list[list[float | None]]:
    """Expected best of 1, 2, … draws by level; empty where neither less nor more of the outcome is better."""
    losses, sign = each.contrasts.losses, each.question.asked.worse
    kept = losses[~np.isnan(losses).any(axis=1)]
    natural = np.exp if each.question.asked.scale == "ratio" else np.asarray
    count = len(kept)
    if not count:
        return []
    return [
        _shorts(natural(sign * np.array([expected_best(column, draws) for draws in range(1, count + 1)])))
        for column in kept.T
    ]


def _curves(reported: Reported, each: Answered) -> list[dict[str, Any]]:
    """Quartiles of the metric over steps by level, where at least half of the level's trials were evaluated."""
    found = []
    for level in range(len(each.question.asked.levels)):
        runs = [run for run in each.runs if run.levels[each.question.asked.name] == level]
        at: dict[int, list[float]] = {}
        for run in runs:
            for step, value in reported.evaluations.curve(run.number, each.question.metric):
                at.setdefault(step, []).append(value)
        steps = spread(sorted(step for step, values in at.items() if 2 * len(values) >= len(runs)), 120)
        quartiles = np.array([np.quantile(at[step], QUARTILES) for step in steps]).reshape(-1, len(QUARTILES)).T
        found.append({"steps": steps, **dict(zip(("low", "middle", "high"), map(_shorts, quartiles), strict=True))})
    return found


def _sheet(each: Answered) -> dict[str, Any]:
    """Blocks and, for each, the trials of all levels that differ in as little else as possible."""
    name = each.question.asked.name
    by_block: dict[int, list[BlockRun]] = {}
    for run in each.runs:
        by_block.setdefault(run.block, []).append(run)
    shown = spread(sorted(by_block), BLOCKS_SHOWN)
    return {
        "blocks": shown,
        "trials": [_alike(by_block[block], name, len(each.question.asked.levels)) for block in shown],
    }


def _alike(runs: Sequence[BlockRun], name: str, levels: int) -> list[int | None]:
    """Numbers of one trial for each level; None for a level without one."""
    references = [run for run in runs if run.levels[name] == 0]
    first = references[0] if references else runs[0]

    def shared(run: BlockRun) -> int:
        return sum(run.levels[other] == level for other, level in first.levels.items() if other != name) + 2 * (
            run.across == first.across
        )

    of_level = [[run for run in runs if run.levels[name] == level] for level in range(levels)]
    return [max(those, key=shared).number if those else None for those in of_level]
