"""The questions of a sweep with their answers, from its runs in MLflow."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from mlflow import MlflowClient

from search.config.sweep import Sweep
from search.names import UNFINISHED_OUTCOMES, Artifact, Outcome, Tag
from search.questions.answers import Answer, answers
from search.questions.blocks import Asked, BlockRun, crossed_of
from search.questions.contrasts import Contrasts, contrasts_of
from search.questions.growth import growth
from search.questions.sentences import notes_of, sentence_of
from search.report.association import associations
from search.terminal import counted, listed
from search.tracking.evaluations import Evaluations
from search.tracking.reader import SweepRun, TrialRun, read_artifact
from search.tracking.runs import value_of
from vaegan_core.strict_yaml import parse_yaml


@dataclass(frozen=True)
class Question:
    """A question as its sweep registered it."""

    asked: Asked
    hash: str
    registered: str
    """Date and time, ISO 8601."""
    text: str
    """YAML."""
    metric: str
    growth: bool
    """Whether the outcome is the metric's slope on the step."""
    across: str | None
    """The setting whose values every level runs at, if any."""
    crossed: tuple[str, ...]
    """Other settings whose values every level runs at."""
    nuisances: tuple[str, ...]
    group: int
    """Those that share trials have the same."""
    looks: tuple[int, ...]
    steps: int
    is_asked: bool
    """Whether the sweep's YAML still asks it."""


@dataclass(frozen=True)
class Answered:
    """A question with what its blocks say."""

    question: Question
    trials: tuple[TrialRun, ...]
    """All trials of its blocks."""
    runs: tuple[BlockRun, ...]
    """Those of blocks in which every trial has ended."""
    contrasts: Contrasts
    answers: tuple[Answer, ...]
    """One for each level but the reference."""
    associations: tuple[str, ...]
    """What the sampler's trials say, for each of the answers; "" where they say nothing."""

    @property
    def notes(self) -> list[list[str]]:
        """What else has to be known, for each of the answers."""
        beside = zip(self.answers, self.associations, strict=True)
        return [[*notes_of(answer), *filter(None, [association])] for answer, association in beside]

    @property
    def sentences(self) -> list[str]:
        """What is said of it, a sentence or more for each level."""
        told = zip(self.answers, self.notes, strict=True)
        return [sentence for answer, notes in told for sentence in (sentence_of(answer), *notes)]


def read_questions(client: MlflowClient, sweep: SweepRun) -> list[Question]:
    """The questions of a sweep, in the order of their registration; none if it has none. Raises ValueError where their
    record is damaged."""
    if Artifact.QUESTIONS not in {item.path for item in client.list_artifacts(sweep.run_id)}:
        return []
    text = read_artifact(client, sweep.run_id, Artifact.QUESTIONS)
    try:
        return [_question(record) for record in json.loads(text)]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{Artifact.QUESTIONS} of run {sweep.run_id} is damaged: {error!r}") from None


def _question(record: Mapping[str, Any]) -> Question:
    scale: Literal["ratio", "difference"] = "ratio" if record["scale"] == "ratio" else "difference"
    asked = Asked(
        name=record["name"],
        outcome=record["outcome"],
        levels=tuple(record["levels"]),
        smallest_effect=float(record["smallest_effect"]),
        scale=scale,
        across=record["across"] is not None,
    )
    return Question(
        asked=asked,
        hash=record["hash"],
        registered=record["registered"],
        text=record["text"],
        metric=record["metric"],
        growth=record["slope"],
        across=record["across"],
        crossed=tuple(record["crossed"]),
        nuisances=tuple(record["nuisances"]),
        group=record["group"],
        looks=tuple(record["looks"]),
        steps=record["steps"],
        is_asked=record["asked"],
    )


def without_blocks(sweep: SweepRun) -> SweepRun:
    """The sweep without the trials of its blocks, which were drawn to answer questions and not to be good."""
    return replace(sweep, trials=tuple(trial for trial in sweep.trials if Tag.BLOCK not in trial.tags))


def answered(
    questions: Sequence[Question], sweep: SweepRun, evaluations: Evaluations, plan: Sweep | None = None, *, over: bool
) -> tuple[Answered, ...]:
    """The questions with their answers; `plan`: what the sweep's YAML says; `over` once it has ended, which is a look.

    Questions that are still asked are judged together (Holm) with those that were looked at before they were taken out.
    All are looked at as planned when the first was registered.
    """
    if not questions:
        return ()
    trials, drawn = [trial for trial in sweep.trials if Tag.BLOCK in trial.tags], without_blocks(sweep)
    runs = list(_runs(questions, _ended(trials), evaluations))
    looks = questions[0].looks
    judged = [each.asked for each in questions if each.is_asked or _num_blocks(each, runs) >= looks[0]]
    others = [each.asked for each in questions if each.asked not in judged]
    found: dict[str, list[Answer]] = {}
    for together in (judged, others):
        for answer in answers(together, runs, looks=looks, over=over):
            found.setdefault(answer.asked.name, []).append(answer)
    return tuple(
        Answered(
            question=question,
            trials=tuple(trial for trial in trials if question.asked.name in _levels(trial)),
            runs=tuple(run for run in runs if question.asked.name in run.levels),
            contrasts=contrasts_of(question.asked, runs),
            answers=tuple(found[question.asked.name]),
            associations=associations(
                question.asked, _factor(question), drawn, plan, partial(_outcome, question, evaluations=evaluations)
            ),
        )
        for question in sorted(questions, key=lambda each: not each.is_asked)
    )


def _factor(question: Question) -> Mapping[str, list[Any]]:
    [given] = parse_yaml(question.text).values()
    factor: Mapping[str, list[Any]] = given["factor"]
    return factor


def _num_blocks(question: Question, runs: Sequence[BlockRun]) -> int:
    return len({run.block for run in runs if question.asked.name in run.levels})


def _levels(trial: TrialRun) -> dict[str, int]:
    levels: dict[str, int] = json.loads(trial.tags.get(Tag.LEVELS, "{}"))
    return levels


def _ended(trials: Sequence[TrialRun]) -> Iterator[TrialRun]:
    """The trials of blocks in which every trial has ended. A block that has fewer than others has some to come."""
    blocks: dict[tuple[frozenset[str], str], list[TrialRun]] = {}
    for trial in trials:
        blocks.setdefault((frozenset(_levels(trial)), trial.tags[Tag.BLOCK]), []).append(trial)
    sizes: dict[frozenset[str], int] = {}
    for (names, _), members in blocks.items():
        sizes[names] = max(sizes.get(names, 0), len(members))
    for (names, _), members in blocks.items():
        if len(members) == sizes[names] and not any(trial.outcome in UNFINISHED_OUTCOMES for trial in members):
            yield from members


def _runs(questions: Sequence[Question], trials: Iterator[TrialRun], evaluations: Evaluations) -> Iterator[BlockRun]:
    """What these trials say; those that failed say nothing."""
    by_name = {question.asked.name: question for question in questions}
    for trial in trials:
        if trial.outcome not in (Outcome.COMPLETED, Outcome.DIVERGED):
            continue
        mine = {name: by_name[name] for name in _levels(trial) if name in by_name}
        nuisances = dict.fromkeys(name for question in mine.values() for name in question.nuisances)
        yield BlockRun(
            number=trial.number,
            block=int(trial.tags[Tag.BLOCK]),
            levels={name: level for name, level in _levels(trial).items() if name in mine},
            across=_across(trial),
            crossed=crossed_of({name: question.crossed for name, question in mine.items()}, trial.params),
            outcomes={name: _outcome(question, trial, evaluations) for name, question in mine.items()},
            diverged=trial.outcome == Outcome.DIVERGED,
            nuisances={name: value_of(trial.params[name]) if name in trial.params else None for name in nuisances},
        )


def _across(trial: TrialRun) -> dict[str, float]:
    """The trial's value of what levels run across, by question."""
    found: dict[str, Any] = json.loads(trial.tags.get(Tag.ACROSS, "{}"))
    return {name: float(value) for name, value in found.items()}


def _outcome(question: Question, trial: TrialRun, evaluations: Evaluations) -> float:
    if question.growth:
        return growth(evaluations.curve(trial.number, question.metric))
    return trial.final.get(question.metric, float("nan"))


def said_of(found: Sequence[Answered]) -> str:
    """How many trials answer how many questions, in a sentence."""
    trials = {trial.number: trial for each in found for trial in each.trials}
    ends = [f"{sum(t.outcome == outcome for t in trials.values())} {outcome}" for outcome in Outcome]
    counts = listed([each for each in ends if not each.startswith("0 ")])
    return f"{counted(len(found), 'question')}, asked in blocks of trials: {len(trials)} so far ({counts or 'none'})."
