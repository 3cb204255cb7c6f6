"""Rows of a journal as plain data."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from search.names import Outcome


class Cause(StrEnum):
    """Why an attempt ended, where that was no verdict on its trial."""

    NONE = ""
    """A verdict, or the attempt still runs."""
    CRASHED = "crashed"
    DIED = "died"
    HUNG = "hung"
    OUT_OF_MEMORY = "out of memory"
    DEVICE = "device"
    """A failing GPU, other than one without memory."""
    NODE_LOST = "node lost"
    STOPPED = "stopped"
    MUTATED = "mutated"
    """It continues with other parameters (population based training)."""


FAILURES = (Cause.CRASHED, Cause.DIED, Cause.HUNG, Cause.DEVICE)
"""Causes that count against a trial; running out of memory is counted separately, the others are nobody's fault."""


BEGAN, GPU_SHARE = "began", "gpu"
"""Keys of an attempt's environment: when its worker began (Unix time in seconds), and its share of a GPU, or GPUs."""


@dataclass(frozen=True)
class BlockPlace:
    """A trial's place in a block."""

    group: int
    """Questions that share trials have the same."""
    block: int
    levels: dict[str, int]
    """By question; 0 is the reference."""
    across: dict[str, float]
    """By question, of those that have one."""


@dataclass(frozen=True)
class TrialRecord:
    """A trial, as it stands now."""

    number: int
    params: dict[str, Any]
    """Searched parameters by dotted name."""
    config: str
    """YAML; `auto` where the machine of an attempt decides."""
    origin: str
    """What proposed it."""
    created: float
    outcome: Outcome
    reason: str
    step: int
    """Step of the last evaluation."""
    ended: float | None
    run_id: str | None
    """MLflow's."""
    synced: str
    """Outcome that MLflow has been sent; "" before any."""
    replicate_of: int | None
    """The trial that this one repeats with another seed, to confirm it."""
    block: BlockPlace | None = None
    """Its place in a block, where it answers questions."""

    @property
    def apart(self) -> bool:
        """Whether it stands apart from the search: it repeats another trial, or answers questions. Such a trial is
        never stopped early, ranks with no other, teaches the sampler nothing and is not in its budget."""
        return self.replicate_of is not None or self.block is not None

    @classmethod
    def of(cls, row: sqlite3.Row) -> TrialRecord:
        values = {name: row[name] for name in TRIAL_COLUMNS}
        block = None if row["block"] is None else BlockPlace(**json.loads(row["block"]))
        typed = {"params": json.loads(row["params"]), "outcome": Outcome(row["outcome"]), "block": block}
        return cls(**values | typed)


@dataclass(frozen=True)
class AttemptRecord:
    """One run of a trial in a worker, from its start or from a checkpoint."""

    trial: int
    attempt: int
    """From 1."""
    started: float
    ended: float | None
    error: str
    """Traceback; "" where nothing went wrong, or while it runs."""
    cause: Cause
    alone: bool
    """Whether it had a whole GPU."""
    from_step: int
    """Step of the checkpoint it continued from, 0 without one."""
    mismatches: int
    """Curve points that an earlier attempt had computed with a different value; the earlier value is kept."""
    mismatch: str
    """The first mismatch, in words."""

    @classmethod
    def of(cls, row: sqlite3.Row) -> AttemptRecord:
        values = {name: row[name] for name in ATTEMPT_COLUMNS}
        return cls(**values | {"cause": Cause(row["cause"]), "alone": bool(row["alone"])})


@dataclass(frozen=True)
class RefusalRecord:
    """Something that MLflow rejected: a point or an image by its id, or another part of a trial."""

    trial: int
    kind: str
    """"point", "image", or what the part is called."""
    ref: int
    what: str
    reason: str

    @classmethod
    def of(cls, row: sqlite3.Row) -> RefusalRecord:
        return cls(row["trial"], row["kind"], row["ref"], row["what"], row["reason"])


@dataclass(frozen=True)
class MutationRecord:
    """A trial of population based training continued from another trial's state, with other parameters."""

    trial: int
    step: int
    donor: int
    params: dict[str, Any]

    @classmethod
    def of(cls, row: sqlite3.Row) -> MutationRecord:
        return cls(row["trial"], row["step"], row["donor"], json.loads(row["params"]))


@dataclass(frozen=True)
class RungRecord:
    """A trial's comparison with the others at a rung of early stopping."""

    trial: int
    rung: int
    step: int
    objectives: tuple[float, ...]
    kept: bool

    @classmethod
    def of(cls, row: sqlite3.Row) -> RungRecord:
        return cls(row["trial"], row["rung"], row["step"], tuple(json.loads(row["objectives"])), bool(row["kept"]))


@dataclass(frozen=True)
class ImageRecord:
    """An image grid that waits for MLflow."""

    id: int
    trial: int
    key: str
    step: int
    png: bytes
    time: int
    """Unix time in milliseconds."""

    @classmethod
    def of(cls, row: sqlite3.Row) -> ImageRecord:
        return cls(row["id"], row["trial"], row["key"], row["step"], row["png"], row["time"])


class FileKind(StrEnum):
    """Kinds of file that a trial saves."""

    STATE = "state"
    """Everything that its next step depends on."""
    MODEL = "model"
    """Its weights alone, once it is complete."""


@dataclass(frozen=True)
class SavedRecord:
    """A file that an attempt at a trial has saved, after its evaluation at a step."""

    trial: int
    attempt: int
    step: int
    kind: FileKind
    key: str
    """Where it lies in the sweep's storage."""
    sha256: str

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> SavedRecord:
        return cls(**{name: row[name] for name in SAVED_COLUMNS} | {"kind": FileKind(row["kind"])})


TRIAL_COLUMNS = tuple(TrialRecord.__dataclass_fields__)
ATTEMPT_COLUMNS = tuple(AttemptRecord.__dataclass_fields__)
SAVED_COLUMNS = tuple(SavedRecord.__dataclass_fields__)
