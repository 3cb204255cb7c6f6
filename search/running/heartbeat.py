"""How far running trials are between their evaluations, for people to look at: workers tell an actor, the driver asks
it. Nothing is decided on it, and it is lost with the driver."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.standings.progress import keep_steps

BEAT_SECONDS = 2.0
"""Shortest time between two heartbeats of a trial."""


class Heartbeats:
    """The actor: the step that each trial has reached."""

    def __init__(self) -> None:
        self.steps: dict[int, int] = {}

    def beat(self, trial: int, step: int) -> None:
        """Notes a trial's step."""
        self.steps[trial] = step

    def read(self) -> dict[int, int]:
        """The last step of every trial."""
        return self.steps


class Pulse:
    """The driver's side: asks the actor without ever waiting for it, and keeps the answer in the sweep's directory for
    other processes."""

    def __init__(self, directory: Path) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        self.actor = ray.remote(Heartbeats).options(num_cpus=0, scheduling_strategy=here).remote()
        self.directory = directory
        self._asked: Any = None
        self._next = 0.0
        self._steps: dict[int, int] = {}
        keep_steps(directory, {})

    def look(self) -> Mapping[int, int]:
        """The step of each trial, as of a moment ago."""
        if self._asked is None and time.monotonic() >= self._next:
            self._asked = self.actor.read.remote()
            self._next = time.monotonic() + BEAT_SECONDS
        if self._asked is not None and ray.wait([self._asked], timeout=0)[0]:
            answer, self._asked = self._asked, None
            with suppress(RayError, OSError):
                self._keep(ray.get(answer))
        return self._steps

    def _keep(self, steps: dict[int, int]) -> None:
        if steps == self._steps:
            return
        self._steps = steps
        keep_steps(self.directory, steps)


def beating(actor: Any, trial: int) -> Callable[[int], None]:
    """A function that tells `actor`, if any, the step of `trial`, not too often; it neither waits nor fails."""
    due = 0.0

    def beat(step: int) -> None:
        nonlocal due
        now = time.monotonic()
        if actor and now >= due:
            due = now + BEAT_SECONDS
            with suppress(RayError):
                actor.beat.remote(trial, step)

    return beat
