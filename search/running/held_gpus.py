"""GPUs on which two different trials failed: named, and held so that no trial gets them."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayError

from search.journal.journal import Journal
from search.running.device_errors import Device, bad_devices
from search.running.hosts import Hosts
from search.running.stop_flag import StopFlag

LOOK_SECONDS = 10.0


class HeldGpus:
    """Holds the bad GPUs of a sweep, in the shares that its trials have, as they become free."""

    def __init__(
        self, journal: Journal, share: float, hosts: Hosts, stop: StopFlag, say: Callable[[str], None]
    ) -> None:
        """`share`: GPUs of a trial; 0 for trials on the CPU, which fail on no GPU."""
        self.journal = journal
        self.share = share
        self.hosts = hosts
        self.stop = stop
        self.say = say
        self._shares = max(1, int(1 / share + 1e-6)) if share else 0
        """How many trials have room on one GPU, or on the GPUs of one."""
        self._held: dict[Device, list[tuple[str, Any]]] = {}
        """Ids of nodes, and what holds a share there."""
        self._asked: dict[ray.ObjectRef, Any] = {}
        """Holders that Ray has not placed yet, by their answers."""
        self._looked = -LOOK_SECONDS

    def look(self) -> None:
        """Looks for bad GPUs now and then, and holds what is free of them; waits for nothing. Stops the sweep when no
        other is left."""
        if self._asked:
            self._keep_placed()
        now = time.monotonic()
        if not self.share or now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        for device, trials in bad_devices(self.journal).items():
            if device not in self._held:
                self._leave_out(device, trials)
            there = self.hosts.nodes_of(device.host)
            self._held[device] = [(node, holder) for node, holder in self._held[device] if node in there]
        if any(map(self._wants, self._held)):
            self._ask()

    def _wants(self, device: Device) -> bool:
        """Whether a share of a bad GPU that is there is not held yet."""
        return bool(self.hosts.nodes_of(device.host)) and len(self._held[device]) < self._shares

    def _leave_out(self, device: Device, trials: list[int]) -> None:
        """Names the device, and lets fewer trials run at a time, so that what they leave free can be held."""
        self._held[device] = []
        numbers = ", ".join(map(str, trials))
        self.say(f"{device} is left out: the trials {numbers} failed on it, and on no other GPU.")
        if not self.hosts.do_without(self._held):
            self.stop.reason = self.stop.reason or "no GPU is left on which trials do not fail"

    def _ask(self) -> None:
        """Asks for every share that is free: Ray does not say on which GPU."""
        unused = max(0.0, 1 - self._shares * self.share) * ray.cluster_resources().get("GPU", 0.0)
        free = int((ray.available_resources().get("GPU", 0.0) - unused) / self.share + 1e-6)
        for _ in range(free - len(self._asked)):
            holder = ray.remote(Holder).options(num_cpus=0, num_gpus=self.share).remote()
            self._asked[holder.place.remote()] = holder

    def _keep_placed(self) -> None:
        """Keeps the holders that are on bad GPUs, and gives back the shares of other devices; those that are not
        placed yet take what becomes free, unless all is held."""
        for answer in ray.wait([*self._asked], num_returns=len(self._asked), timeout=0)[0]:
            holder = self._asked.pop(answer)
            try:
                node, device = ray.get(answer)
            except RayError:  # its node died, or it could not begin
                continue
            if device in self._held and self._wants(device):
                self._held[device].append((node, holder))
            else:
                ray.kill(holder)
        if not any(map(self._wants, self._held)):
            for holder in self._asked.values():
                ray.kill(holder)
            self._asked.clear()


class Holder:
    """An actor that does nothing with its share of a GPU."""

    def place(self) -> tuple[str, Device]:
        """Id of its node, and the GPU."""
        device = Device(platform.node(), ",".join(str(gpu) for gpu in ray.get_gpu_ids()))
        return ray.get_runtime_context().get_node_id(), device
