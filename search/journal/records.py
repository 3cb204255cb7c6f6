"""What a journal's rows are read into."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

TrialOutcome = Literal["running", "completed", "pruned", "diverged", "failed", "interrupted"]
FINAL_OUTCOMES: tuple[TrialOutcome, ...] = ("completed", "pruned", "diverged", "failed")
Cause = Literal["crashed", "out of memory", "died", "hung", "node lost", "stopped", "mutated"]
FAILURES = ("crashed", "died", "hung")
"""Causes that count against a trial; memory that ran out is counted apart, the rest is nobody's fault."""


@dataclass(frozen=True)
class TrialRecord:
    number: int
    params: dict[str, Any]
    config: str
    origin: str
    created: float
    outcome: TrialOutcome
    reason: str
    step: int
    ended: float | None
    run_id: str | None
    synced: str
    replicate_of: int | None


@dataclass(frozen=True)
class AttemptRecord:
    """One attempt at a trial; `error` is "" where nothing went wrong, or it still runs."""

    trial: int
    attempt: int
    started: float
    ended: float | None
    error: str
    cause: Cause | Literal[""]
    alone: bool
    """Had a whole GPU."""
    from_step: int
    """Of the checkpoint that it went on from, 0 without."""
    mismatches: int
    """Points that an earlier attempt had computed with another value; the earlier one stays."""
    mismatch: str
    """The first of them, in words."""


@dataclass(frozen=True)
class RefusalRecord:
    """Something that MLflow refused to take: a point or an image by its id, or another part of a trial."""

    trial: int
    kind: str
    """point, image, or what it is called."""
    ref: int
    what: str
    reason: str


@dataclass(frozen=True)
class MutationRecord:
    """A trial of population based training that went on from another's state, with other parameters."""

    trial: int
    step: int
    donor: int
    params: dict[str, Any]


@dataclass(frozen=True)
class RungRecord:
    trial: int
    rung: int
    step: int
    objectives: tuple[float, ...]
    kept: bool


@dataclass(frozen=True)
class ImageRecord:
    id: int
    trial: int
    key: str
    step: int
    png: bytes
    time: int
