"""The hosts of a cluster while a sweep runs: which left, which joined, and how many trials fit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from search.cluster.demand import ask_for, unanswered
from search.cluster.examination import Needs, Node, examine, leave_out, let_in, nodes_of_ray
from search.cluster.nodes import is_cluster
from search.config.sweep import Sweep
from search.journal.journal import Journal
from search.journal.records import Cause
from search.running.device_errors import Device
from search.running.resources import concurrent_trials
from search.running.searcher import SweepSearcher
from search.storage.store import StorageUnavailable
from search.terminal import counted

LOOK_SECONDS = 5.0
AGAIN_SECONDS = 300.0
"""After how long a node that was left out is looked at again: what was wrong with it may have passed."""
NO_STORAGE = (
    "cannot reach the sweep's files, which are on the driver's machine alone; begin a sweep with a storage "
    "(--storage s3://…) to use every host"
)


class Hosts:
    """Lets as many trials run as the hosts have room for, whoever leaves and joins."""

    def __init__(self, sweep: Sweep, left_out: Collection[str], needs: Needs, say: Callable[[str], None]) -> None:
        """`left_out`: ids of nodes that get no trials until they have what trials need, as a node that joins must."""
        self.sweep = sweep
        self.needs = needs
        self.say = say
        self._looked = time.monotonic()
        self._left_out = dict.fromkeys(left_out, self._looked + AGAIN_SECONDS)
        """When each is looked at again."""
        self._known = {node.id: node for node in self._fit()}
        self._beside = ThreadPoolExecutor(1, "hosts")  # the driver's thread waits for no storage
        self._examination: Future[list[Node]] | None = None
        self._doubted: frozenset[tuple[int, int]] = frozenset()
        """Attempts that never began, after which the hosts were looked at."""
        self._asked: list[Any] = []
        self._bad_gpus: set[tuple[str, str]] = set()
        """GPUs on which trials fail, by host and Ray's id."""
        self.slots = self._slots()
        self._ask()

    def _fit(self) -> list[Node]:
        return [node for node in nodes_of_ray() if node.id not in self._left_out]

    def nodes_of(self, host: str) -> frozenset[str]:
        """Ids of the nodes of a host that trials run on."""
        return frozenset(node.id for node in self._known.values() if node.host == host)

    def do_without(self, gpus: Collection[Device]) -> bool:
        """Counts no room on these GPUs, while their hosts are there. Whether a trial has room on others; also where no
        host is there now, for one may come."""
        self._bad_gpus = {(device.host, gpu) for device in gpus for gpu in device.gpus.split(",")}
        self.slots = self._slots()
        return not self._known or self.sweep.config.resources.fitting(self._room()) > 0

    def _room(self) -> dict[str, float]:
        room = {kind: sum(node.resources.get(kind, 0.0) for node in self._known.values()) for kind in ("CPU", "GPU")}
        hosts = {node.host for node in self._known.values()}
        room["GPU"] -= sum(host in hosts for host, _ in self._bad_gpus)
        return room

    def _slots(self) -> int:
        """How many trials fit at once; one where there is no host, which waits for the next."""
        return concurrent_trials(self.sweep, self._room())

    def look(self, search: SweepSearcher) -> None:
        """Looks now and then; says in a line each what has changed since."""
        search.max_concurrent = self.slots
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        there = {node.id: node for node in self._fit()}
        gone = [self._known.pop(id) for id in self._known.keys() - there.keys()]
        fit, unfit = self._examined(there, search)
        came = [node for node in fit if node.id not in self._known]
        self._known |= {node.id: node for node in came}
        stays_out = [self._known.pop(node.id, None) for node in unfit]
        search.max_concurrent = self.slots = self._slots()
        self._ask()
        for node in unfit:
            for line in node.in_words():
                self.say(f"Left out: {line}")
        if any(stays_out):
            self.say(f"Without it, {self._now()}.")
        for verb, nodes in (("left", gone), ("joined", came)):
            for node in sorted(nodes, key=lambda node: node.name):
                self.say(f"{node.name} {verb} the cluster; {self._now()}.")

    def _examined(self, there: dict[str, Node], search: SweepSearcher) -> tuple[list[Node], list[Node]]:
        """Nodes that were looked at beside the driver's thread, since they joined, a trial could not begin somewhere or
        they were left out some time ago: the fit ones, and those that get no trials from now on."""
        if not self.needs.storage and (joined := [node for id, node in there.items() if id not in self._known]):
            return [], self._without([replace(node, problems=(NO_STORAGE,)) for node in joined], search)
        if self._examination is None:
            never_began = search.failures.never_began()
            doubt = bool(never_began - self._doubted)
            self._doubted = never_began
            nodes = [node for id, node in there.items() if (id in self._known) == doubt] or self._due()
            needs = replace(self.needs, tracking="") if doubt else self.needs  # trials go on without MLflow
            self._examination = self._beside.submit(examine, nodes, needs) if nodes else None
            return [], []
        if not self._examination.done():
            return [], []
        looked, self._examination = self._examination, None
        if isinstance(looked.exception(), StorageUnavailable | ValueError):  # it is tried again at the next look
            self._doubted = frozenset()
            return [], []
        alive = {node.id for node in nodes_of_ray()}
        nodes = [node for node in looked.result() if node.id in alive]
        fit = [node for node in nodes if not node.problems]
        self._let_in([node for node in fit if node.id in self._left_out], search)
        unfit = [node for node in nodes if node.problems and node.id not in self._left_out]
        unfit = [node for node in unfit if node.answered or node.id not in search.nodes_in_use()]
        if self._known and self._known.keys() <= {node.id for node in unfit}:
            unfit = []  # what is wrong with all of them is no fault of theirs, and may pass
        return fit, self._without(unfit, search)

    def _due(self) -> list[Node]:
        """Nodes that were left out some time ago, and whose next time is set now."""
        now = time.monotonic()
        due = [node for node in nodes_of_ray() if self._left_out.get(node.id, math.inf) <= now]
        self._left_out |= dict.fromkeys([node.id for node in due], now + AGAIN_SECONDS)
        return due

    def _let_in(self, nodes: list[Node], search: SweepSearcher) -> None:
        """Has trials run again on nodes with which nothing is wrong any more."""
        for node in nodes:
            del self._left_out[node.id]
        search.failures.left_out -= {node.id for node in nodes}
        let_in(nodes)

    def _without(self, unfit: list[Node], search: SweepSearcher) -> list[Node]:
        """Gives these nodes no more trials."""
        ids = {node.id for node in unfit}
        again = time.monotonic() + AGAIN_SECONDS if self.needs.storage else math.inf
        self._left_out |= dict.fromkeys(ids, again)
        search.failures.left_out |= ids
        leave_out(unfit, 0, self.sweep.config.resources)
        return unfit

    def _ask(self) -> None:
        """Asks the autoscaler, if there is one, for what `resources.max_concurrent` trials need and is not there; not
        where the sweep has no storage, so that no other host can run its trials.

        Asked at every look: a task that found room while no trial was there to take it has asked for nothing.
        """
        most = self.sweep.config.resources.max_concurrent
        if most and self.needs.storage and is_cluster():
            self._asked = unanswered(self._asked)
            missing = most - (self.slots if self._known else 0) - len(self._asked)
            if missing > 0:
                self._asked += ask_for(self.sweep.config.resources, missing)

    def _now(self) -> str:
        if not self._known:
            return "no host is there now, and trials wait for one"
        return f"{counted(len(self._known), 'host')} now, for up to {counted(self.slots, 'trial')} at a time"

    def began(self, journal: Journal, number: int) -> None:
        """A worker has begun; says where a trial goes on whose host was lost."""
        *before, attempt = journal.attempts(number)
        if before and before[-1].cause == Cause.NODE_LOST:
            host = journal.environment(number, attempt.attempt).get("host", "another host")
            how = f"goes on from step {attempt.from_step}" if attempt.from_step else "begins again"
            self.say(f"Trial {number} {how} on {host}.")
