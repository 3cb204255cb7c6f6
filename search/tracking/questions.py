"""The questions of a sweep, as its run in MLflow has them: `questions.json`, a list in the order of registration."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from search.config.questions import SlopeConfig
from search.config.sweep import Sweep
from search.journal.questions import Registered, groups_of
from search.questions.looks import planned_looks
from vaegan_core.strict_yaml import dump_yaml


def record_of(sweep: Sweep, questions: list[Registered]) -> list[dict[str, Any]]:
    """The registered questions as plain data for readers that know no journal."""
    nuisances = {name: group.nuisances for number, group in groups_of(sweep, questions) for name in group.questions}
    record = []
    for each in questions:
        question = each.question
        entry = {
            "name": each.name,
            "hash": each.hash,
            "registered": datetime.fromtimestamp(each.time, UTC).isoformat(timespec="seconds"),
            "text": dump_yaml({each.given: each.text}),
            "levels": list(question.level_names),
            "outcome": question.outcome_in_words,
            "metric": question.metric,
            "slope": isinstance(question.outcome, SlopeConfig),
            "smallest_effect": question.smallest_effect,
            "scale": question.scale,
            "across": next(iter(question.across), None),
            "crossed": list(question.crossed),
            "nuisances": nuisances.get(each.name, []),
            "group": each.group,
            "looks": list(planned_looks(*each.looks)),
            "steps": sweep.block_steps,
            "asked": each.is_asked(sweep),
        }
        record.append(entry)
    return record
