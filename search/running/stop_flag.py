"""When a sweep ends before its last trial: a person stops it, or a budget is used up."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from search.config.sweep import Sweep
from search.config.sweep_config import ResourcesConfig
from search.journal.journal import Journal
from search.journal.meta import Meta
from search.journal.sweeps import STOP_MINUTES
from search.paths import disk_use
from search.terminal import Screen

LOOK_SECONDS = 2.0
QUICK_SECONDS = 0.02
"""A look at the disk that takes no longer may be had at every look."""
DISK_SHARE = 0.02
"""Largest share of the driver's time that slower ones may take."""


class StopFlag:
    """Why the sweep should stop; "" while it should not. Running trials stop at their next evaluation."""

    def __init__(self, sweep: Sweep, journal: Journal, directory: Path) -> None:
        self.budget = sweep.config.budget
        self.journal = journal
        self.directory = directory
        self.reason = ""
        self.presses = 0
        self._begun = time.monotonic()
        self._stopping_since: float | None = None
        self._looked = -LOOK_SECONDS
        self._disk_gb = 0.0
        self._next_disk = 0.0
        self.bill(sweep.config.resources)
        journal.set_meta(Meta.STOP_REQUESTED, "")

    def __call__(self) -> bool:
        return bool(self.reason)

    def bill(self, resources: ResourcesConfig) -> None:
        """Says what each trial takes, once `resources.gpu` is known."""
        self.gpu = float(resources.gpu) if resources.gpu != "auto" else 0.0

    def look(self) -> None:
        """Checks budgets and requests now and then. Raises KeyboardInterrupt when trials have not stopped in time."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        self._measure_disk(now)
        self.reason = self.reason or self.journal.meta(Meta.STOP_REQUESTED, "") or self._used_up()
        if self.reason:
            self._stopping_since = self._stopping_since or now
            if now - self._stopping_since > 60 * STOP_MINUTES:
                raise KeyboardInterrupt

    def _measure_disk(self, now: float) -> None:
        """Adds up the sweep's files; seldom where that takes long, because trials wait for the driver meanwhile."""
        if self.budget.disk_gb and now >= self._next_disk:
            self._disk_gb = disk_use(self.directory) / 1e9
            ended = time.monotonic()
            self._next_disk = ended + max(0.0, ended - now - QUICK_SECONDS) / DISK_SHARE

    def _used_up(self) -> str:
        for name, (used, most) in self.used().items():
            if used >= most:
                return f"the budget of {most:g} {name} is used up"
        return ""

    def used(self) -> dict[str, tuple[float, float]]:
        """(used, budget) of every budget that is set, except the number of trials; of the disk as of the last look."""
        found: dict[str, tuple[float, float]] = {}
        if self.budget.hours:
            found["hours"] = ((time.monotonic() - self._begun) / 3600, self.budget.hours)
        if self.budget.gpu_hours:
            found["GPU hours"] = (self.journal.gpu_seconds(self.gpu) / 3600, self.budget.gpu_hours)
        if self.budget.disk_gb:
            found["GB on disk"] = (self._disk_gb, self.budget.disk_gb)
        return found


@contextmanager
def interruptible(stop: StopFlag, screen: Screen) -> Iterator[None]:
    """Ctrl-C once: stop cleanly; twice: at once. SIGTERM stops cleanly, however often it comes. Either way `vaegan
    resume` continues from there."""

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if stop.presses and number == signal.SIGTERM:
            return
        stop.presses += 1
        stop.reason = stop.reason or "interrupted"
        if stop.presses > 1:
            raise KeyboardInterrupt
        screen.say(
            f"Stopping: running trials stop at their next evaluation, within {STOP_MINUTES:g} minutes. "
            "Press Ctrl-C again to stop at once."
        )

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
