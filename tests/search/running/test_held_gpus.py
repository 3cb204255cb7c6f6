"""Bad GPUs are named, and held as trials leave them; whatever Ray does with what holds them, the driver goes on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorUnschedulableError
from sweeps import make_journal

from search.running import held_gpus
from search.running.device_errors import Device
from search.running.held_gpus import HeldGpus

BAD = Device("h", "1")


class Hosts:
    """A host that is there, as a node that may change."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.node = "n1"
        """"" while it is not there."""
        self.without: list[Device] = []

    def nodes_of(self, host: str) -> frozenset[str]:
        assert host == BAD.host
        return frozenset([self.node] if self.node else [])

    def do_without(self, gpus: Iterable[Device]) -> bool:
        self.without = [*gpus]
        return self.slots > 2


class Answer:
    """What an actor answers once it is placed: the GPU that it got."""

    gpu = ""


class Remote:
    """Ray with two GPUs, of which trials leave free what `free` says; actors come in that order."""

    def __init__(self, share: float, free: list[str]) -> None:
        self.share = share
        self.free = free
        self.waiting: list[Answer] = []
        """Actors for which there is no room."""
        self.asked = 0
        self.node = "n1"
        self.dies = False
        """Whether the node of an actor dies before it answers."""

    def cluster_resources(self) -> dict[str, float]:
        return {"GPU": 2.0}

    def available_resources(self) -> dict[str, float]:
        unused = 1 - int(1 / self.share) * self.share
        return {"GPU": self.share * len(self.free) + 2 * unused + 1e-4}

    def remote(self, _kind: type) -> Any:
        return SimpleNamespace(options=self._options)

    def _options(self, num_cpus: int, num_gpus: float) -> Any:
        assert (num_cpus, num_gpus) == (0, self.share)
        return SimpleNamespace(remote=self._actor)

    def _actor(self) -> Any:
        self.asked += 1
        answer = Answer()
        self.waiting.append(answer)
        return SimpleNamespace(answer=answer, place=SimpleNamespace(remote=lambda: answer))

    def wait(self, answers: list[Answer], *, num_returns: int, timeout: float) -> tuple[list[Answer], list[Answer]]:
        assert (num_returns, timeout) == (len(answers), 0), "the driver waits for nothing"
        for answer in answers:
            if not answer.gpu and self.free:
                answer.gpu = self.free.pop(0)
                self.waiting.remove(answer)
        placed = [answer for answer in answers if answer.gpu]
        return placed, self.waiting

    def get(self, answer: Answer) -> tuple[str, Device]:
        if self.dies:
            raise ActorUnschedulableError("its node died")
        return self.node, Device("h", answer.gpu)

    def kill(self, actor: Any) -> None:
        if actor.answer.gpu:
            self.free.append(actor.answer.gpu)
        else:
            self.waiting.remove(actor.answer)


def hold(
    monkeypatch: pytest.MonkeyPatch, directory: Path, cluster: Remote, slots: int = 4
) -> tuple[HeldGpus, Hosts, Any, list[str]]:
    """What holds bad GPUs of that cluster, with its hosts, the stop flag and what was said."""
    monkeypatch.setattr(held_gpus, "ray", cluster)
    monkeypatch.setattr(held_gpus, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(held_gpus, "bad_devices", lambda _: {BAD: [3, 5]})
    hosts, stop, said = Hosts(slots), SimpleNamespace(reason=""), list[str]()
    return HeldGpus(make_journal(directory), cluster.share, hosts, stop, said.append), hosts, stop, said


def look(held: HeldGpus, times: int = 2) -> None:
    for _ in range(times):
        held.look()


@pytest.mark.parametrize("slots", [4, 2])
def test_a_bad_gpu_is_named_and_held_as_it_becomes_free(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, slots: int
) -> None:
    cluster = Remote(0.5, ["0", "1"])
    held, hosts, stop, said = hold(monkeypatch, tmp_path, cluster, slots)
    look(held)
    assert said == ["GPU 1 of h is left out: the trials 3, 5 failed on it, and on no other GPU."]
    assert hosts.without == [BAD]
    assert bool(stop.reason) == (slots == 2), "nothing else is left"
    cluster.free.append("1")
    look(held, 4)
    assert (cluster.free, cluster.waiting) == (["0"], []), "all of it is held, and nothing else"
    assert len(said) == 1


@pytest.mark.parametrize("share", [0.4, 0.6])
def test_a_bad_gpu_is_held_where_a_share_does_not_divide_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, share: float
) -> None:
    shares = int(1 / share)
    cluster = Remote(share, [*["1"] * shares, "0"])
    held, *_ = hold(monkeypatch, tmp_path, cluster)
    look(held)
    asked = cluster.asked
    look(held, 5)
    assert (cluster.free, cluster.waiting) == (["0"], [])
    assert cluster.asked == asked, "what is held is asked for no more"


def test_a_holder_that_a_trial_forestalls_takes_what_becomes_free_next(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cluster = Remote(0.5, ["1", "0"])
    held, *_ = hold(monkeypatch, tmp_path, cluster)
    held.look()
    cluster.free.remove("0")
    look(held, 3)
    assert (cluster.asked, len(cluster.waiting)) == (2, 1)
    cluster.free.append("1")
    look(held, 3)
    assert (cluster.asked, cluster.free, cluster.waiting) == (2, [], []), "both shares of the bad GPU are held"


def test_a_holder_whose_node_dies_is_asked_for_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cluster = Remote(0.5, ["1", "1"])
    held, *_ = hold(monkeypatch, tmp_path, cluster)
    cluster.dies = True
    look(held)
    assert cluster.asked == 2
    cluster.dies, cluster.free = False, ["1", "1"]
    look(held, 4)
    assert (cluster.asked, cluster.free) == (4, [])


def test_a_bad_gpu_is_held_again_when_its_host_was_lost_and_is_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cluster = Remote(0.5, ["1", "1"])
    held, hosts, *_ = hold(monkeypatch, tmp_path, cluster)
    look(held)
    hosts.node, cluster.free = "", ["0"]
    look(held, 4)
    assert (cluster.asked, cluster.free) == (2, ["0"]), "other hosts are left in peace meanwhile"
    hosts.node = cluster.node = "n2"
    cluster.free = ["1", "1"]
    look(held, 4)
    assert (cluster.asked, cluster.free) == (4, [])
