"""What driver and worker say to each other: an assignment goes to the worker, reports come back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from search.journal.records import Cause
from vaegan_core.evaluation import Evaluation


@dataclass(frozen=True)
class Assignment:
    """One attempt at a trial, as Tune hands it to a worker."""

    trial: int
    attempt: int
    alone: bool
    """Whether it gets a whole GPU, because it ran out of memory on a share."""
    replicate: bool
    """Whether it confirms another trial; such a trial is never stopped early."""
    config: str
    """The trial's YAML."""
    directory: str
    """Where the trial's files lie, on a path that the worker sees too."""
    gpu: float | Literal["auto"]
    """GPUs, or a share of one; a driver has resolved `auto`."""
    seconds: float
    """Time without an evaluation after which the worker counts as hung."""
    step: int = 0
    """Step of the last evaluation in the journal: what a checkpoint has from there on is reported again."""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Assignment:
        return cls(**{field.name: config[field.name] for field in fields(cls)})

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


@dataclass(frozen=True)
class Ended:
    """An exception ended the attempt."""

    cause: Cause
    error: str
    """Traceback."""


Report = Started | Evaluated | Ended

STARTED, EVALUATED, ENDED = "started", "evaluated", "ended"
"""Keys of Tune's results."""


def to_result(report: Report) -> dict[str, Any]:
    """The report as Tune carries it."""
    match report:
        case Started():
            return {STARTED: json.dumps(asdict(report))}
        case Evaluated(evaluation):
            return {EVALUATED: evaluation.to_bytes()}
        case Ended():
            return {ENDED: json.dumps(asdict(report))}


def from_result(result: Mapping[str, Any]) -> Report | None:
    """The report in one of Tune's results; None in a result that Tune made by itself."""
    if STARTED in result:
        return Started(**json.loads(result[STARTED]))
    if EVALUATED in result:
        return Evaluated(Evaluation.from_bytes(result[EVALUATED]))
    if ENDED in result:
        ended = json.loads(result[ENDED])
        return Ended(Cause(ended["cause"]), ended["error"])
    return None


def discard_payload(result: dict[str, Any]) -> None:
    """Removes an evaluation's bytes from a result that has been read, so that Tune's own state stays small."""
    result.pop(EVALUATED, None)
