"""What driver and worker say to each other: an assignment goes to the worker, reports come back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from search.journal.records import Cause, SavedRecord
from vaegan_core.evaluation import Evaluation


@dataclass(frozen=True)
class Assignment:
    """One attempt at a trial, as Tune hands it to a worker."""

    trial: int
    attempt: int
    alone: bool
    """Whether it gets a whole GPU, because it ran out of memory on a share."""
    apart: bool
    """Whether it stands apart from the search; such a trial is never stopped early, and its weights are not kept."""
    config: str
    """The trial's YAML."""
    storage: str
    """Where the sweep's files lie: the URI of a storage, or a directory that the worker sees too."""
    prefix: str
    """What their keys begin with there."""
    folder: str
    """Key prefix of the files that this attempt writes."""
    scratch: str
    """A directory on the worker's machine for what no other machine needs."""
    state: dict[str, Any] | None
    """The state to begin with, as a SavedRecord's fields, which may be another trial's; None: from the beginning."""
    gpu: float | Literal["auto"]
    """GPUs, or a share of one; a driver has resolved `auto`."""
    seconds: float
    """Time without an evaluation after which the worker counts as hung."""
    step: int = 0
    """Step of the last evaluation in the journal: what a checkpoint has from there on is reported again."""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Assignment:
        return cls(**{field.name: config[field.name] for field in fields(cls)})

    @property
    def start(self) -> SavedRecord | None:
        """The state to begin with."""
        return SavedRecord.of(self.state) if self.state else None

    def to_config(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Started:
    """The worker's first words."""

    config: str
    """The trial's YAML, as it was assigned."""
    environment: dict[str, str]
    """Host, device, what the machine decided, versions, Ray's ids of node and GPUs, and the share of a GPU."""
    from_step: int
    """Step of the checkpoint it continues from, 0 without one."""


@dataclass(frozen=True)
class Evaluated:
    """The trial reached its next evaluation."""

    evaluation: Evaluation
    saved: tuple[SavedRecord, ...] = ()
    """What was saved of it before."""


@dataclass(frozen=True)
class Ended:
    """An exception ended the attempt."""

    cause: Cause
    error: str
    """Traceback."""


Report = Started | Evaluated | Ended

STARTED, EVALUATED, SAVED, ENDED = "started", "evaluated", "saved", "ended"
"""Keys of Tune's results."""


def to_result(report: Report) -> dict[str, Any]:
    """The report as Tune carries it."""
    match report:
        case Started():
            return {STARTED: json.dumps(asdict(report))}
        case Evaluated(evaluation, saved):
            return {EVALUATED: evaluation.to_bytes(), SAVED: json.dumps([asdict(record) for record in saved])}
        case Ended():
            return {ENDED: json.dumps(asdict(report))}


def from_result(result: Mapping[str, Any]) -> Report | None:
    """The report in one of Tune's results; None in a result that Tune made by itself."""
    if STARTED in result:
        return Started(**json.loads(result[STARTED]))
    if EVALUATED in result:
        saved = tuple(SavedRecord.of(record) for record in json.loads(result[SAVED]))
        return Evaluated(Evaluation.from_bytes(result[EVALUATED]), saved)
    if ENDED in result:
        ended = json.loads(result[ENDED])
        return Ended(Cause(ended["cause"]), ended["error"])
    return None


def discard_payload(result: dict[str, Any]) -> None:
    """Removes an evaluation's bytes from a result that has been read, so that Tune's own state stays small."""
    for key in (EVALUATED, SAVED):
        result.pop(key, None)
