"""GPUs on which two different trials failed: named, and held so that no trial gets them."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from typing import Any

import ray

from search.journal.journal import Journal
from search.running.device_errors import Device, bad_devices
from search.running.searcher import SweepSearcher
from search.running.stop_flag import StopFlag

LOOK_SECONDS = 10.0
HOLD_SECONDS = 30.0
"""How long the driver waits for Ray to place what holds a GPU."""


class HeldGpus:
    """Holds the bad GPUs of a sweep, in the shares that its trials have, as they become free."""

    def __init__(
        self, journal: Journal, share: float, search: SweepSearcher, stop: StopFlag, say: Callable[[str], None]
    ) -> None:
        """`share`: GPUs of a trial; 0 for trials on the CPU, which fail on no GPU."""
        self.journal = journal
        self.share = share
        self.search = search
        self.stop = stop
        self.say = say
        self._held: dict[Device, list[Any]] = {}
        self._looked = -LOOK_SECONDS

    def look(self) -> None:
        """Looks for bad GPUs now and then, and holds what is free of them. Stops the sweep when no other is left."""
        now = time.monotonic()
        if not self.share or now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        for device, trials in bad_devices(self.journal).items():
            if device not in self._held:
                self._leave_out(device, trials)
            if len(self._held[device]) * self.share < 1 - 1e-6:
                self._hold(device)

    def _leave_out(self, device: Device, trials: list[int]) -> None:
        """Names the device, and lets fewer trials run at a time, so that what they leave free can be held."""
        self._held[device] = []
        self.search.max_concurrent -= max(1, round(1 / self.share))
        numbers = ", ".join(map(str, trials))
        self.say(f"{device} is left out: the trials {numbers} failed on it, and on no other GPU.")
        if self.search.max_concurrent < 1:
            self.stop.reason = self.stop.reason or "no GPU is left on which trials do not fail"

    def _hold(self, device: Device) -> None:
        """Takes every free share of a GPU, and gives back those of other devices."""
        free = int(ray.available_resources().get("GPU", 0.0) / self.share + 1e-6)
        holders = [ray.remote(Holder).options(num_cpus=0, num_gpus=self.share).remote() for _ in range(free)]
        asked = {holder.device.remote(): holder for holder in holders}
        placed = ray.wait([*asked], num_returns=len(asked), timeout=HOLD_SECONDS)[0] if asked else []
        for answer, holder in asked.items():
            if answer in placed and ray.get(answer) == device:
                self._held[device].append(holder)
            else:
                ray.kill(holder)


class Holder:
    """An actor that does nothing with its share of a GPU."""

    def device(self) -> Device:
        return Device(platform.node(), ",".join(str(gpu) for gpu in ray.get_gpu_ids()))
