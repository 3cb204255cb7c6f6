"""One driver at a time for a sweep in a storage, also between machines that do not see each other.

Every driver has a number of its own, its epoch, and an object `lease/EPOCH.json` that no other may create; its holder
alone renews it. A driver that would take the lease creates the next epoch's object, once the present holder has not
renewed its own for EXPIRY_SECONDS by the taker's own clock. A holder that finds a higher epoch, or that could not renew
for so long that another may have taken over, has lost it.

Only "create unless it is there" is asked of the storage (If-None-Match on S3 and GCS, O_EXCL in a directory). Clocks
need not agree: only durations are compared, each on one machine.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import PurePosixPath

from search.storage.store import StorageUnavailable, Store, first_line

EXPIRY_SECONDS = 60.0
RENEW_SECONDS = 15.0
LOST_SECONDS = 45.0
"""Time since the last renewal after which the holder must not write any more; below EXPIRY_SECONDS by more than one
call to the storage may take."""


class LeaseLost(ValueError):
    """Another driver may run the sweep by now."""


def boottime() -> float:
    """Seconds on a clock that also runs while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class StorageLease:
    """The lease of the sweep whose objects lie below `prefix`."""

    def __init__(self, store: Store, prefix: str, holder: str, *, clock: Callable[[], float] = boottime) -> None:
        """`holder` names this driver to people, as "job vaegan-demo on w1"."""
        self.store = store
        self.prefix = f"{prefix}/lease"
        self.holder = holder
        self.epoch = 0
        """0 while it is not held."""
        self._clock = clock
        self._asking = threading.Lock()
        self._renewed = 0.0
        self._lost = ""

    def take(self, wait: Callable[[float], None] = time.sleep) -> int:
        """Takes the lease and returns its epoch; waits up to EXPIRY_SECONDS for a holder that has fallen silent.

        Raises ValueError, which names the holder, while that one renews.
        """
        seen, since = self._present(), self._clock()
        while seen and not seen[1].get("released"):
            wait(RENEW_SECONDS / 3)
            now = self._present()
            if now != seen:
                assert now is not None
                raise ValueError(
                    f"{now[1]['holder']} is running the sweep in {self.store.uri}; stop it first (vaegan stop), or "
                    "choose another name"
                )
            if self._clock() - since >= EXPIRY_SECONDS:
                break
        epoch, begun = seen[0] + 1 if seen else 1, self._clock()
        created = self.store.create(self._key(epoch), self._content())
        others = [key for key in self.store.keys(self.prefix) if epoch_of(key) != epoch]
        # Creating again what a later holder has removed is possible for a driver that slept meanwhile.
        if not created or any(epoch_of(key) > epoch for key in others):
            raise ValueError(f"another driver has just taken over the sweep in {self.store.uri}")
        self.epoch, self._renewed = epoch, begun
        self.store.delete(others)
        return epoch

    def renew(self) -> None:
        """Says that this driver is alive. Raises LeaseLost where another one has taken over meanwhile."""
        with self._asking:
            self.check()
            begun = self._clock()
            present = self._present()
            if present is None or present[0] != self.epoch:
                self._lost = f"{present[1]['holder']} has taken it over" if present else "it was removed"
                self.check()
            self.store.put(self._key(self.epoch), self._content())
            self._renewed = begun

    def check(self) -> None:
        """Raises LeaseLost unless nobody else can hold the lease now; asks nobody."""
        silent = self._clock() - self._renewed
        if not self._lost and silent > LOST_SECONDS:
            self._lost = f"it could not be renewed for {silent:.0f} s"
        if self._lost:
            raise LeaseLost(f"this driver has lost the sweep in {self.store.uri}: {self._lost}")

    def release(self) -> None:
        """Lets the next driver in at once, and counts as a loss from then on."""
        with self._asking:
            self.check()
            self._lost = "it has released it"
            self.store.put(self._key(self.epoch), self._content(released=True))

    def _present(self) -> tuple[int, dict[str, str]] | None:
        """Epoch and content of the newest holder's object; None where nobody has ever held the lease."""
        while epochs := [epoch_of(key) for key in self.store.keys(self.prefix)]:
            if content := self.store.read(self._key(max(epochs))):  # else a newer one has removed it
                return max(epochs), json.loads(content)
        return None

    def _key(self, epoch: int) -> str:
        return f"{self.prefix}/{epoch:06d}.json"

    def _content(self, *, released: bool = False) -> bytes:
        """Different each time, so that a renewal shows."""
        return json.dumps({"holder": self.holder, "beat": uuid.uuid4().hex, "released": released}).encode()


def epoch_of(key: str) -> int:
    """The epoch that a lease object's key names."""
    return int(PurePosixPath(key).stem)


class Renewal:
    """Renews a lease in a thread of its own until it is closed or lost; a storage that is away is asked again. Whatever
    else keeps it from renewing counts as a loss."""

    def __init__(self, lease: StorageLease, on_loss: Callable[[str], None]) -> None:
        """`on_loss` is called from the thread, once, with what to tell a person."""
        self.lease = lease
        self.on_loss = on_loss
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        wait = RENEW_SECONDS
        while not self._ended.wait(wait):
            try:
                self.lease.renew()
                wait = RENEW_SECONDS
            except StorageUnavailable:
                wait = 1.0
            except ValueError as error:
                self.on_loss(str(error))
                return
            except Exception as error:
                self.on_loss(f"this driver cannot renew its hold on {self.lease.store.uri}: {first_line(error)}")
                return

    def close(self) -> None:
        """Ends the renewing and lets the next driver in, as far as the storage can be reached."""
        self._ended.set()
        self._thread.join()
        try:
            self.lease.release()
        except (StorageUnavailable, ValueError):
            return
