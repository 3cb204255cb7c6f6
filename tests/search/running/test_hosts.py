"""Hosts that go and come while a sweep runs: said in a line each, and as many trials run as fit."""

from __future__ import annotations

import time
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sweeps import make_journal, make_sweep
from tuning import Tuning

from search.cluster.examination import Needs, Node
from search.config.sweep_config import ResourcesConfig
from search.journal.records import Cause
from search.running import hosts
from search.running.device_errors import Device
from search.running.hosts import Hosts
from search.storage.store import StorageUnavailable

NEEDS = Needs("s3://bucket", "http://mlflow", 0)
MUTE = "does not answer within 20 s; is it overloaded, or cut off?"


class Cluster:
    """What Ray says of a cluster."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.asked: list[int] = []
        self.pending = 0
        """Requests for which there is no room yet."""
        self.wrong: dict[str, list[str]] = {}
        """What is wrong with nodes, by their ids."""
        self.failure: Exception | None = None
        """What keeps the driver from looking at nodes."""
        self.answers = True
        """Whether nodes that are examined answer."""
        self.waiting: list[tuple[Future[Any], list[Node]]] = []
        self.held: list[str] = []
        self.first = ("a", "b")
        """The nodes that were looked at before the sweep began."""

    def ask(self, _: object, trials: int) -> list[str]:
        """What asks an autoscaler."""
        self.asked.append(trials)
        return ["asked"] * trials

    def submit(self, _: object, nodes: list[Node], needs: Needs) -> Future[Any]:
        """What has a thread look at nodes."""
        assert needs == (NEEDS if all(node.id not in self.first for node in nodes) else replace(NEEDS, tracking=""))
        self.waiting.append((Future(), nodes))
        return self.waiting[-1][0]

    def answer(self) -> None:
        """Nodes that are being looked at answer, if they do."""
        while self.answers and self.waiting:
            future, nodes = self.waiting.pop()
            if self.failure:
                future.set_exception(self.failure)
                continue
            looked = [replace(node, problems=tuple(self.wrong.get(node.id, ()))) for node in nodes]
            future.set_result([replace(node, answered=node.problems != (MUTE,)) for node in looked])

    def leave_out(self, nodes: list[Node], seconds: float, trial: ResourcesConfig) -> None:
        assert (seconds, trial.cpu) == (0, 1)
        self.held += [node.id for node in nodes]

    def let_in(self, nodes: list[Node]) -> None:
        self.held = [id for id in self.held if id not in {node.id for node in nodes}]

    def unanswered(self, asked: list[str]) -> list[str]:
        return asked[: self.pending]

    def add(self, id: str, host: str, **resources: float) -> None:
        self.nodes.append(Node(id, host, "10.0.0.1", resources))

    def remove(self, id: str) -> None:
        self.nodes = [node for node in self.nodes if node.id != id]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster()
    monkeypatch.setattr(hosts, "nodes_of_ray", lambda: made.nodes)
    monkeypatch.setattr(hosts, "is_cluster", lambda: True)
    monkeypatch.setattr(hosts, "ask_for", made.ask)
    monkeypatch.setattr(hosts, "unanswered", made.unanswered)
    monkeypatch.setattr(hosts, "ThreadPoolExecutor", lambda *_: made)
    monkeypatch.setattr(hosts, "leave_out", made.leave_out)
    monkeypatch.setattr(hosts, "let_in", made.let_in)
    monkeypatch.setattr(hosts, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr("search.running.failures.node_is_here", lambda _: False)
    made.add("a", "w1", CPU=2.0)
    made.add("b", "w2", CPU=3.0)
    return made


def tuning(directory: Path, **resources: Any) -> Tuning:
    sweep = make_sweep(resources={"cpu": 1, "gpu": 0, **resources}, budget={"trials": 100})
    return Tuning(sweep, make_journal(directory), 5)


def look(watch: Hosts, made: Tuning, cluster: Cluster) -> None:
    """Two looks: the first has new nodes looked at."""
    watch.look(made.search)
    cluster.answer()
    watch.look(made.search)


def test_trials_follow_the_hosts_that_are_there(cluster: Cluster, tmp_path: Path) -> None:
    made, said = tuning(tmp_path), list[str]()
    watch = Hosts(made.sweep, set(), NEEDS, said.append)
    assert watch.slots == 5
    made.start(5)
    assert made.suggest() is None
    look(watch, made, cluster)
    assert said == []
    cluster.add("c", "w3", CPU=2.0)
    look(watch, made, cluster)
    assert said == ["w3 (10.0.0.1) joined the cluster; 3 hosts now, for up to 7 trials at a time."]
    made.start(2)
    assert made.suggest() is None
    cluster.remove("b")
    cluster.remove("c")
    look(watch, made, cluster)
    assert sorted(said[1:]) == [
        "w2 (10.0.0.1) left the cluster; 1 host now, for up to 2 trials at a time.",
        "w3 (10.0.0.1) left the cluster; 1 host now, for up to 2 trials at a time.",
    ]
    for number in range(5):
        made.complete(number)
        assert made.suggest() is None, "two run, as many as fit"
    made.complete(5)
    made.start(1)


def test_a_sweep_without_any_host_waits_for_one(cluster: Cluster, tmp_path: Path) -> None:
    made, said = tuning(tmp_path), list[str]()
    watch = Hosts(made.sweep, set(), NEEDS, said.append)
    cluster.remove("a")
    cluster.remove("b")
    look(watch, made, cluster)
    assert said[-1] == "w2 (10.0.0.1) left the cluster; no host is there now, and trials wait for one."
    made.start(1)
    assert made.suggest() is None


def test_nodes_that_were_left_out_and_the_most_at_a_time_are_kept_to(cluster: Cluster, tmp_path: Path) -> None:
    made, said = tuning(tmp_path, max_concurrent=4), list[str]()
    watch = Hosts(made.sweep, {"b"}, NEEDS, said.append)
    assert watch.slots == 2
    cluster.remove("b")
    look(watch, made, cluster)
    assert said == []
    cluster.add("c", "w3", CPU=9.0)
    look(watch, made, cluster)
    assert watch.slots == 4


def gpus(cluster: Cluster, directory: Path, **resources: Any) -> tuple[Hosts, Tuning]:
    """Two hosts with two GPUs each."""
    cluster.nodes = []
    cluster.add("a", "w1", CPU=16.0, GPU=2.0)
    cluster.add("b", "w2", CPU=16.0, GPU=2.0)
    made = tuning(directory, **{"gpu": 0.5} | resources)
    return Hosts(made.sweep, set(), NEEDS, lambda _: None), made


def test_the_room_on_a_bad_gpu_counts_once_whether_its_host_is_there_or_not(cluster: Cluster, tmp_path: Path) -> None:
    watch, made = gpus(cluster, tmp_path)
    assert watch.slots == 8
    assert watch.do_without([Device("w2", "1")])
    for step, slots in (("", 6), ("remove", 4), ("return", 6)):
        if step == "remove":
            cluster.remove("b")
        elif step == "return":
            cluster.add("c", "w2", CPU=16.0, GPU=2.0)
        look(watch, made, cluster)
        assert (watch.slots, made.search.max_concurrent) == (slots, slots), step


@pytest.mark.parametrize("resources", [{"max_concurrent": 2}, {"cpu": 16}], ids=str)
def test_where_other_limits_are_lower_a_bad_gpu_costs_no_room(
    cluster: Cluster, tmp_path: Path, resources: dict[str, int]
) -> None:
    watch, made = gpus(cluster, tmp_path, **resources)
    assert watch.do_without([Device("w1", "0"), Device("w2", "1")])
    look(watch, made, cluster)
    assert made.search.max_concurrent == 2


def test_no_room_is_left_when_every_gpu_that_is_there_is_bad(cluster: Cluster, tmp_path: Path) -> None:
    watch, made = gpus(cluster, tmp_path, gpu=0.4)
    assert watch.slots == 8, "two on each GPU"
    bad = [Device("w1", "0"), Device("w1", "1"), Device("w2", "0"), Device("w2", "1")]
    assert watch.do_without(bad[:3])
    assert not watch.do_without(bad)
    cluster.remove("a")
    cluster.remove("b")
    look(watch, made, cluster)
    assert watch.do_without(bad), "a host may come"


@pytest.mark.usefixtures("cluster")
def test_where_a_trial_goes_on_whose_host_was_lost_is_said(tmp_path: Path) -> None:
    made, said = tuning(tmp_path), list[str]()
    watch = Hosts(made.sweep, set(), NEEDS, said.append)
    for cause, step, expected in (
        (Cause.NODE_LOST, 20, ["Trial 0 goes on from step 20 on w2."]),
        (Cause.NODE_LOST, 0, ["Trial 1 begins again on w2."]),
        (Cause.DIED, 20, []),
    ):
        [number] = made.start()
        made.begin(number)
        watch.began(made.journal, number)
        assert said == []
        made.journal.end_attempt(number, 1, "lost", cause)
        attempt = made.journal.start_attempt(number)
        made.journal.start_trial(number, attempt, "", {"host": "w2"}, step)
        watch.began(made.journal, number)
        assert said == expected
        said.clear()


def test_an_autoscaler_is_asked_for_what_is_not_there_and_not_twice(cluster: Cluster, tmp_path: Path) -> None:
    made = tuning(tmp_path, max_concurrent=8)
    watch = Hosts(made.sweep, set(), NEEDS, lambda _: None)
    assert cluster.asked == [3], "five of eight fit"
    cluster.pending = 8
    cluster.remove("b")
    look(watch, made, cluster)
    assert cluster.asked == [3, 3], "two fit, and three were asked for already"
    cluster.add("c", "w3", CPU=2.0)
    look(watch, made, cluster)
    assert cluster.asked == [3, 3]
    cluster.pending = 3
    watch.look(made.search)
    assert cluster.asked == [3, 3, 1], "what found room before a trial took it is asked for again"
    cluster.pending = 8
    cluster.remove("a")
    cluster.remove("c")
    look(watch, made, cluster)
    assert cluster.asked == [3, 3, 1, 4]


def test_a_node_that_joins_is_looked_at_first_and_left_out_by_name(cluster: Cluster, tmp_path: Path) -> None:
    made, said = tuning(tmp_path), list[str]()
    watch = Hosts(made.sweep, set(), NEEDS, said.append)
    cluster.wrong["c"] = ["cannot use the storage: refused"]
    cluster.add("c", "w3", CPU=2.0)
    cluster.add("d", "w4", CPU=1.0)
    cluster.answers = False
    for _ in range(3):
        look(watch, made, cluster)
    assert (said, watch.slots) == ([], 5)
    cluster.answers = True
    for _ in range(3):
        look(watch, made, cluster)
    assert said == [
        "Left out: w3 (10.0.0.1): cannot use the storage: refused",
        "w4 (10.0.0.1) joined the cluster; 3 hosts now, for up to 6 trials at a time.",
    ]
    assert cluster.held == ["c"]


def test_a_sweep_without_a_storage_stays_on_the_hosts_that_it_began_on(cluster: Cluster, tmp_path: Path) -> None:
    made, said = tuning(tmp_path, max_concurrent=8), list[str]()
    watch = Hosts(made.sweep, set(), replace(NEEDS, storage=""), said.append)
    cluster.add("c", "w3", CPU=2.0)
    for _ in range(2):
        look(watch, made, cluster)
    [line] = said
    assert line.startswith("Left out: w3 (10.0.0.1): cannot reach the sweep's files")
    assert (cluster.held, watch.slots, cluster.asked) == (["c"], 5, [])


def test_a_node_that_was_left_out_is_looked_at_again_after_some_time_and_let_in_once_nothing_is_wrong(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    made, said = tuning(tmp_path), list[str]()
    watch = Hosts(made.sweep, set(), NEEDS, said.append)
    cluster.wrong["c"] = ["cannot reach MLflow: refused; open its port to this host, or correct tracking.uri"]
    cluster.add("c", "w3", CPU=2.0)
    look(watch, made, cluster)
    assert said == [f"Left out: w3 (10.0.0.1): {cluster.wrong['c'][0]}"]
    now[0] += hosts.AGAIN_SECONDS
    look(watch, made, cluster)
    assert (len(said), cluster.held) == (1, ["c"]), "it is as it was, and that is not said again"
    del cluster.wrong["c"]
    look(watch, made, cluster)
    assert (len(said), cluster.held, watch.slots) == (1, ["c"], 5), "it is not due yet"
    now[0] += hosts.AGAIN_SECONDS
    look(watch, made, cluster)
    assert said[1:] == ["w3 (10.0.0.1) joined the cluster; 3 hosts now, for up to 7 trials at a time."]
    assert (cluster.held, watch.slots, made.search.failures.left_out) == ([], 7, set())


@pytest.mark.parametrize("failure", [StorageUnavailable("away"), ValueError("refused")], ids=["away", "refused"])
def test_a_storage_that_is_away_when_a_node_joins_is_asked_again(
    cluster: Cluster, tmp_path: Path, failure: Exception
) -> None:
    made, said = tuning(tmp_path), list[str]()
    watch = Hosts(made.sweep, set(), NEEDS, said.append)
    cluster.add("c", "w3", CPU=2.0)
    cluster.failure = failure
    look(watch, made, cluster)
    assert (said, watch.slots) == ([], 5)
    cluster.failure = None
    look(watch, made, cluster)
    assert watch.slots == 7


def test_a_node_on_which_a_trial_cannot_begin_is_found_and_left_out_and_no_trial_pays(
    cluster: Cluster, tmp_path: Path
) -> None:
    made, said = tuning(tmp_path), list[str]()
    watch = Hosts(made.sweep, set(), NEEDS, said.append)
    [number] = made.start()
    cluster.wrong["b"] = ["cannot run our code (No module named 'torch'); install what constraints.txt pins there"]
    made.die(number)
    assert made.suggest() is not None, "others go on while it awaits its verdict"
    look(watch, made, cluster)
    assert said == [
        f"Left out: w2 (10.0.0.1): {cluster.wrong['b'][0]}",
        "Without it, 1 host now, for up to 2 trials at a time.",
    ]
    assert (cluster.held, watch.slots) == (["b"], 2)
    assert made.start() == [number]
    assert [attempt.cause for attempt in made.journal.attempts(number)] == [Cause.NODE_LOST, ""]
    assert made.journal.failures(number) == []
    look(watch, made, cluster)
    assert len(said) == 2


def test_no_trial_pays_that_cannot_begin_on_a_node_that_is_left_out_while_others_still_run_there(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tuning(tmp_path)
    watch = Hosts(made.sweep, set(), NEEDS, lambda _: None)
    busy, number = made.start(2)
    made.begin(busy, "b")
    cluster.wrong["b"] = ["cannot run our code (No module named 'torch'); install what constraints.txt pins there"]
    made.die(number)
    look(watch, made, cluster)
    assert cluster.held == ["b"]
    monkeypatch.setattr("search.running.failures.NODE_LOSS_SECONDS", -1.0)
    assert made.start() == [number]
    made.die(number)
    assert made.start() == [number]
    assert made.journal.failures(number) == [], "it may have got what a trial left free there"
    made.die(number)
    made.complete(busy)
    assert made.start() == [number]
    made.die(number)
    causes = [attempt.cause for attempt in made.journal.attempts(number)]
    assert causes == [*[Cause.NODE_LOST] * 3, Cause.STOPPED], "all of the node is held: it ended elsewhere"


def test_what_is_wrong_with_every_node_leaves_none_out(cluster: Cluster, tmp_path: Path) -> None:
    made, said = tuning(tmp_path), list[str]()
    watch = Hosts(made.sweep, set(), NEEDS, said.append)
    [number] = made.start()
    cluster.wrong = {"a": ["cannot use the storage: refused"], "b": ["cannot use the storage: refused"]}
    made.die(number)
    look(watch, made, cluster)
    assert (said, cluster.held, watch.slots) == ([], [], 5)


def test_where_nothing_is_wrong_with_the_nodes_a_trial_that_cannot_begin_has_failed(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.running.failures.NODE_LOSS_SECONDS", 0.05)
    made, said, looked = tuning(tmp_path, max_concurrent=2), list[str](), 0
    watch = Hosts(made.sweep, set(), NEEDS, said.append)
    [busy] = made.start()
    made.begin(busy, "b")
    cluster.wrong["b"] = [MUTE]
    [number] = made.start()
    made.die(number)
    for _ in range(3):
        watch.look(made.search)
        looked += len(cluster.waiting)
        cluster.answer()
    assert looked == 1, "once for each such attempt"
    assert said == [], "a node that is too busy to answer, and runs trials, stays"
    time.sleep(0.1)
    assert made.start() == [number]
    assert [attempt.cause for attempt in made.journal.attempts(number)] == [Cause.STOPPED, ""]
