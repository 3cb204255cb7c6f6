"""A thread beside the driver that brings the journal to the storage, and deletes there what the journal, as it was
shipped, needs no more."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Container
from functools import partial
from pathlib import Path

from search.storage.lease import LeaseLost, StorageLease
from search.storage.shipping import Shipper
from search.storage.store import TIMEOUT_SECONDS, StorageUnavailable, first_line
from search.storage.trial_files import TrialFiles
from search.terminal import say_safely

SHIP_SECONDS = 5.0
"""Time between two shipments: half of what may be missing after the loss of the driver's machine."""
LAST_SECONDS = 60.0
"""How long the end of a run waits for a storage that is away."""


class Keeper:
    """Ships the journal at `path` while `lease` is held."""

    def __init__(
        self,
        path: Path,
        files: TrialFiles,
        lease: StorageLease,
        say: Callable[[str], None],
        on_loss: Callable[[str], None],
    ) -> None:
        """`on_loss` is called from the thread, with what to tell a person, where the lease is lost before the end."""
        self.path = path
        self.files = files
        self.lease = lease
        self._say = partial(say_safely, say)
        self._on_loss = on_loss
        self._waiting: deque[Callable[[], None]] = deque()
        self._ended, self._wake = threading.Event(), threading.Event()
        self._begun = self._done = self._points = 0
        self._failing = False
        self._shipper: Shipper | None = None
        """The thread's own."""
        self._thread = threading.Thread(target=self._run, name="storage", daemon=True)
        self._thread.start()

    def delete(self, keys: list[str]) -> None:
        """Deletes files once the storage has the journal that needs them no more."""
        self._waiting.append(partial(self.files.delete, keys))

    def delete_others(self, trial: int, needed: Container[str]) -> None:
        """Deletes all files of a trial but those that are needed, as `delete` does."""
        self._waiting.append(partial(self.files.delete_others, trial, needed))

    def flush(self) -> None:
        """Waits until the storage has all that is in the journal now, as far as it can be reached."""
        wanted, deadline = self._begun + 1, time.monotonic() + LAST_SECONDS
        while self._done < wanted and self._thread.is_alive() and time.monotonic() < deadline:
            self._wake.set()
            time.sleep(0.1)

    def close(self) -> bool:
        """Brings what is left; whether the storage has everything."""
        wanted = self._begun + 1
        self._ended.set()
        self._wake.set()
        self._thread.join(LAST_SECONDS + TIMEOUT_SECONDS)
        return self._done >= wanted

    def _run(self) -> None:
        try:
            while not self._ended.is_set():
                if not self._round():
                    self._wake.wait(SHIP_SECONDS)
                self._wake.clear()
            deadline = time.monotonic() + LAST_SECONDS
            left = self._round()
            while (left or self._waiting or self._done < self._begun) and time.monotonic() < deadline:
                if not left:
                    time.sleep(1.0)
                left = self._round()
        except LeaseLost as error:
            if not self._ended.is_set():
                self._on_loss(str(error))
        finally:
            if self._shipper:
                self._shipper.close()

    def _round(self) -> bool:
        """Ships, and deletes what is due by then; whether there was no time for some of it, so that the next round is
        to come at once. What goes wrong is said once, and all of it tried again next time."""
        due = len(self._waiting)  # what was forgotten before this shipment
        self._begun += 1
        try:
            left = self._ship(self._begun) and self._act(due)
        except LeaseLost:
            raise
        except Exception as error:
            if not self._failing:
                self._say(_told(error, self.files.uri))
            self._failing = True
            return False
        if self._failing and self._done == self._begun:
            self._failing = False
            self._say("The storage has everything again.")
        return left

    def _act(self, due: int) -> bool:
        """Does the first `due` of what waits, until the next shipment is due; whether some of it is left."""
        if due:
            self.lease.renew()  # asks the storage: the machine may have stood still meanwhile
        until = time.monotonic() + SHIP_SECONDS
        for _ in range(due):
            if time.monotonic() > until:
                return True
            self.lease.check()
            self._waiting[0]()
            self._waiting.popleft()
        return False

    def _ship(self, number: int) -> bool:
        """Whether the storage has all that was in the journal when round `number` began."""
        self._shipper = self._shipper or Shipper(self.path, self.files.store, self.files.prefix, self.lease.epoch)
        points = self._shipper.newest_point()
        self.lease.check()
        if not self._shipper.ship():
            return False
        if points != self._points:
            self._shipper.note_points(points)
            self._points = points
        self._done = number
        return True


def _told(error: Exception, uri: str) -> str:
    """What keeps the storage from having everything, for a person."""
    if isinstance(error, StorageUnavailable | ValueError):  # also refused: rights may come back
        return f"{error}; trials wait for it, and the sweep goes on once it is back."
    return f"The journal cannot be brought to {uri}: {first_line(error)}. It is tried again every {SHIP_SECONDS:.0f} s."
