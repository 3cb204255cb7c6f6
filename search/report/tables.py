"""The numbers of a report as plain data, for programs: JSON with everything, CSV with a row for each trial."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from search.json_text import json_text
from search.names import GPU_HOURS, STEP, TRIAL_HOURS, Prefix, Tag
from search.questions.answers import Answer
from search.questions.sentences import sentence_of
from search.report.answered import Answered
from search.report.reported import Reported, on_front
from search.tracking.evaluations import Evaluations
from search.tracking.reader import TrialRun

OTHERS_TAGS = ("mlflow.", "vaegan.")
"""Beginnings of tags that say nothing of the trial."""
COLUMNS = ("sweep", "number", "run_id", "outcome", "reason", "step", "place", "on_front", "feasible", "origin")


def to_json(reported: Sequence[Reported]) -> str:
    """Everything that the page says and draws, but pictures and training curves; null where a number is not finite."""
    return json_text({"sweeps": [_sweep(each) for each in reported]}) + "\n"


def to_csv(reported: Sequence[Reported]) -> str:
    """A row for each trial of each sweep, best first, then those of blocks: COLUMNS, its last validation metrics,
    confirmed means and half-widths of their intervals, parameters, and tags; empty where a trial does not have one."""
    rows = [row for each in reported for row in _rows(each)]
    names = list(dict.fromkeys([*COLUMNS, *(name for row in rows for name in row)]))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _sweep(reported: Reported) -> dict[str, Any]:
    sweep, found = reported.sweep, reported.findings
    return {
        "name": sweep.name,
        "run_id": sweep.run_id,
        "experiment_id": sweep.experiment_id,
        "objectives": list(sweep.objectives),
        "baselines": dict(sweep.baselines),
        "hours": sweep.metrics.get(TRIAL_HOURS),
        "gpu_hours": sweep.metrics.get(GPU_HOURS),
        "words": list(found.words),
        "recommended": found.recommended,
        "next": found.command,
        "checks": [dataclasses.asdict(check) for check in found.checks],
        "importances": [dataclasses.asdict(importance) for importance in found.importances],
        "importances_from": found.basis,
        "questions": [_answered(each) for each in reported.answered],
        "front": [trial.number for trial in sweep.completed if on_front(trial)],
        "trials": [_trial(trial, place) for trial, place in _placed(reported)],
        "evaluations": _evaluations(reported.evaluations),
    }


def _placed(reported: Reported) -> Iterator[tuple[TrialRun, int | None]]:
    """Trials with their places, best first, then those of blocks, which have none."""
    yield from ((trial, place) for place, trial in enumerate(reported.ordered, 1))
    yield from (
        (trial, None) for _, trial in sorted({t.number: t for each in reported.answered for t in each.trials}.items())
    )


def _answered(each: Answered) -> dict[str, Any]:
    """A question with its answers, and what each block says: outcomes by level, as logs where effects are ratios."""
    question, asked, contrasts = each.question, each.question.asked, each.contrasts
    return {
        **dataclasses.asdict(asked),
        "hash": question.hash,
        "registered": question.registered,
        "text": question.text,
        "asked": question.is_asked,
        "looks": list(question.looks),
        "answers": [_answer(*of) for of in zip(each.answers, each.notes, strict=True)],
        "blocks": {
            "number": contrasts.blocks.tolist(),
            "values": contrasts.values.tolist(),
            "contrasts": contrasts.effects.tolist(),
            "diverged": contrasts.diverged.astype(int).tolist(),
        },
    }


def _answer(answer: Answer, notes: list[str]) -> dict[str, Any]:
    fields = dataclasses.asdict(answer)
    del fields["asked"]
    return {**fields, "sentence": sentence_of(answer), "notes": notes}


def _trial(trial: TrialRun, place: int | None) -> dict[str, Any]:
    confirmation = trial.confirmation
    return {
        "number": trial.number,
        "run_id": trial.run_id,
        "place": place,
        "outcome": trial.outcome,
        "step": trial.step,
        "final": {key: value for key, value in trial.final.items() if key != STEP},
        "confirmed": dataclasses.asdict(confirmation) if confirmation else None,
        "params": dict(trial.params),
        "tags": _tags(trial),
    }


def _evaluations(evaluations: Evaluations) -> dict[str, Any]:
    """Columns: an entry for each evaluation, replicates included."""
    return {
        "complete": evaluations.complete,
        "trial": evaluations.trial.tolist(),
        "step": evaluations.step.tolist(),
        "seconds": evaluations.seconds.tolist(),
        "host": evaluations.host.tolist(),
        "replicate_of": [number if number >= 0 else None for number in evaluations.replicate_of.tolist()],
        **{key: values.tolist() for key, values in evaluations.metrics.items()},
    }


def _rows(reported: Reported) -> Iterable[dict[str, Any]]:
    for trial, place in _placed(reported):
        confirmation = trial.confirmation
        tags = _tags(trial)
        row = {
            "sweep": reported.sweep.name,
            "number": trial.number,
            "run_id": trial.run_id,
            "outcome": trial.outcome,
            "reason": tags.pop(Tag.REASON, ""),
            "step": trial.step,
            "place": place,
            "on_front": tags.pop(Tag.ON_FRONT, ""),
            "feasible": tags.pop(Tag.FEASIBLE, ""),
            "origin": tags.pop(Tag.ORIGIN, ""),
            **{key: value for key, value in trial.final.items() if key != STEP},
        }
        if confirmation is not None:
            row |= {f"{Prefix.CONFIRMED}{key}": value for key, value in confirmation.mean.items()}
            row |= {f"{Prefix.HALF_WIDTH}{key}": value for key, value in confirmation.half_width.items()}
        yield row | dict(trial.params) | {f"tags.{name}": value for name, value in tags.items()}


def _tags(trial: TrialRun) -> dict[str, str]:
    """Tags that say something of the trial, but what has a column of its own."""
    other = (Tag.SWEEP_NAME, Tag.OUTCOME)
    return {name: text for name, text in trial.tags.items() if not name.startswith(OTHERS_TAGS) and name not in other}
