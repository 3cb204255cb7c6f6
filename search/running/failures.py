"""What an attempt that ended without a verdict means: whose fault it was, and whether its trial is tried again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from search.cluster.nodes import dead_nodes, node_is_here, read_text_on
from search.config.sweep import Sweep
from search.journal.journal import Journal
from search.journal.records import FAILURES, AttemptRecord, Cause
from search.names import Outcome
from search.paths import HANG_FILE
from search.running.device_errors import bad_devices
from search.storage.place import Place

MOST_FORGIVEN = 5
"""Failures of a trial on bad GPUs that do not count against it."""
NODE_LOSS_SECONDS = 45.0
"""How long Ray may take to notice that a node is lost."""
DEAD_BEFORE = "its worker process had died before it began"
LOW_ON_MEMORY = "running low on memory"
"""What Ray (2.60) says of workers that it ended because their machine had too little memory left."""
LITTLE_MEMORY = "its machine ran low on memory, and Ray ended the worker process"


@dataclass(frozen=True)
class Live:
    """An attempt that Tune has been given."""

    number: int
    attempt: int
    alone: bool
    lost_nodes: frozenset[str]
    """Nodes to which it could not get: dead when it began, or left out with no trial on them."""


@dataclass(frozen=True)
class Suspect:
    """An attempt whose process died while Ray may not yet know that its node is lost."""

    live: Live
    deadline: float
    why: str
    """The reason of a death that is nobody else's fault."""


@dataclass(frozen=True)
class Verdict:
    """What follows for a trial: it is tried again, or has failed."""

    number: int
    again: bool


class Failures:
    """Counts what goes wrong, by trial; Tune has a single counter for everything."""

    def __init__(self, sweep: Sweep, journal: Journal, place: Place, stop_requested: Callable[[], bool]) -> None:
        self.sweep = sweep
        self.journal = journal
        self.place = place
        self.stop_requested = stop_requested
        self.suspects: list[Suspect] = []
        self.left_out: set[str] = set()
        """Ids of nodes that were found to be unfit while trials ran."""

    def begin(self, number: int, in_use: frozenset[str]) -> Live:
        """Opens the next attempt at a trial: alone on a GPU where it has run out of memory before.

        `in_use`: ids of nodes on which trials run. One that is left out may still get the shares that they leave.
        """
        alone = any(attempt.cause == Cause.OUT_OF_MEMORY for attempt in self.journal.attempts(number))
        attempt = self.journal.start_attempt(number, alone=alone)
        self._hang(number, attempt).unlink(missing_ok=True)  # what it says was counted
        return Live(number, attempt, alone, dead_nodes() | (self.left_out - in_use))

    def _hang(self, number: int, attempt: int) -> Path:
        return self.place.scratch(number, attempt) / HANG_FILE

    def _where_it_hung(self, live: Live) -> str:
        """What the worker's watch wrote when it ended the worker; "" where it did not."""
        path = self._hang(live.number, live.attempt)
        if path.is_file():
            text = path.read_text()
            path.unlink()  # or the next attempt's death would look like a second hang
            return text
        return read_text_on(self._node(live), path)

    def _node(self, live: Live) -> str:
        """Id of the node of an attempt; "" where it ended before it said so."""
        return self.journal.environment(live.number, live.attempt).get("node", "")

    def never_began(self) -> frozenset[tuple[int, int]]:
        """Attempts that await a verdict and never began: their node may not be able to run trials."""
        lives = (suspect.live for suspect in self.suspects)
        return frozenset((live.number, live.attempt) for live in lives if not self._node(live))

    def ended(self, live: Live, said: str = "") -> Iterator[Verdict]:
        """An attempt ended while its trial still runs: a crash, no memory, a dead worker or node, a mutation.

        `said`: what Ray says about a worker that died.
        """
        if self.journal.attempts(live.number)[-1].ended is not None:
            yield self._verdict(live)
            return
        if hung := self._where_it_hung(live):
            minutes = self.sweep.config.evaluation_minutes
            error = f"{hung}\nHung: no evaluation within {minutes:g} minutes"
            self.journal.end_attempt(live.number, live.attempt, error, Cause.HUNG)
            yield self._verdict(live)
        elif self.stop_requested():
            self.journal.end_attempt(live.number, live.attempt, cause=Cause.STOPPED)
            self.journal.end_trial(live.number, Outcome.INTERRUPTED, "stopped before its next evaluation")
        else:
            why = LITTLE_MEMORY if LOW_ON_MEMORY in said else "the worker process died"
            self.suspects.append(Suspect(live, time.monotonic() + NODE_LOSS_SECONDS, why))
            yield from self.judge_suspects()

    def judge_suspects(self) -> Iterator[Verdict]:
        """Tells a process that died by itself, which counts against its trial, from one that died with its node."""
        for suspect in list(self.suspects):
            live = suspect.live
            node = self._node(live)
            dead = dead_nodes()
            if node in dead or (not node and (dead | self.left_out) - live.lost_nodes):
                self.journal.end_attempt(live.number, live.attempt, "its node was lost", Cause.NODE_LOST)
            elif not (node_is_here(node) or time.monotonic() > suspect.deadline):
                continue
            elif not node and not self._excused(live.number):
                self.journal.end_attempt(live.number, live.attempt, DEAD_BEFORE, Cause.STOPPED)
            else:
                self.journal.end_attempt(live.number, live.attempt, suspect.why, Cause.DIED)
            self.suspects.remove(suspect)
            yield self._verdict(live)

    def _excused(self, number: int) -> bool:
        """Whether a worker that served other trials, and died before this one began in it, was excused already."""
        return any(attempt.error == DEAD_BEFORE for attempt in self.journal.attempts(number))

    def _verdict(self, live: Live) -> Verdict:
        return Verdict(live.number, again=not self.gives_up(live.number))

    def gives_up(self, number: int) -> bool:
        """Ends a trial as failed if it may not be tried again; whether it did. A driver may have died before."""
        reason = self._reason_to_give_up(number)
        if reason:
            self.journal.end_trial(number, Outcome.FAILED, reason)
        return bool(reason)

    def _reason_to_give_up(self, number: int) -> str:
        """Why a trial has failed; "" while it may be tried again."""
        attempts = self.journal.attempts(number)
        if not attempts:
            return ""
        attempt = attempts[-1]
        if attempt.cause == Cause.OUT_OF_MEMORY and (attempt.alone or not self.sweep.config.resources.gpu):
            return "out of GPU memory, also alone on a GPU"
        failures = self._counted(number) if attempt.cause in FAILURES else []
        if len(failures) > self.sweep.config.retries:
            return failures[-1].error.strip().splitlines()[-1]
        return ""

    def _counted(self, number: int) -> list[AttemptRecord]:
        """The trial's failures, without the first that are the fault of a bad GPU."""
        failures = self.journal.failures(number)
        if not any(number in trials for trials in bad_devices(self.journal).values()):
            return failures
        excused = [attempt for attempt in failures if attempt.cause == Cause.DEVICE][:MOST_FORGIVEN]
        return [attempt for attempt in failures if attempt not in excused]
