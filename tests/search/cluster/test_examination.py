"""What is wrong with a node is one line with its remedy, and nothing is said of one that is right."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.exceptions import RaySystemError
from servers import free_port

from search.cluster import examination
from search.cluster.examination import (
    Asked,
    Facts,
    Needs,
    Node,
    examine,
    gather,
    leave_out,
    let_in,
    nodes_of_ray,
    problems_of,
)
from search.config.sweep_config import ResourcesConfig

HERE = Facts("head", "3.11.7", {"ray": "2.60.0", "torch": "2.13.0"}, clock=1000.0, gpus=None)
THERE = replace(HERE, host="w1", clock=1000.5, gpus=2)
RESOURCES = {"CPU": 16.0, "GPU": 2.0, "object_store_memory": 2e9}


def said(facts: Facts, frames: int = 10**9) -> list[str]:
    return list(problems_of(facts, HERE, (1000.0, 1001.0), RESOURCES, frames))


def test_nothing_is_said_of_a_node_that_is_right() -> None:
    assert said(THERE) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"python": "3.12.1"}, "runs Python 3.12.1, but the driver 3.11.7; install the same"),
        ({"versions": {"ray": "2.60.0", "torch": ""}}, "torch is not installed; install torch==2.13.0"),
        ({"versions": {"ray": "2.59.0", "torch": "2.13.0"}}, "has ray 2.59.0, but the driver 2.60.0; install"),
        ({"storage": "refused"}, "cannot use the storage: refused"),
        ({"tracking": "no route"}, "cannot reach MLflow: no route; open its port to this host"),
        ({"clock": 4600.0}, "its clock is 3,599 s off; have it set by NTP"),
        ({"clock": 997.0}, "its clock is 3 s off"),
        ({"gpus": 1}, "Ray was told of 2 GPUs, but PyTorch sees 1; start Ray with --num-gpus=1"),
    ],
)
def test_what_is_wrong_is_named_with_its_remedy(change: dict[str, Any], message: str) -> None:
    [line] = said(replace(THERE, **change))
    assert message in line


def test_frames_must_fit_into_the_object_store() -> None:
    [line] = said(THERE, frames=3 * 10**9)
    assert (
        line
        == "its object store has 2.00 GB, but the frames take 3.00; start Ray with --object-store-memory=3600000000"
    )


def test_a_node_tries_the_storage_and_mlflow_itself(tmp_path: Path) -> None:
    (tmp_path / "doctor").mkdir()
    (tmp_path / "doctor" / "driver").write_text("doctor")
    away = f"http://127.0.0.1:{free_port()}"
    facts = gather(Asked(str(tmp_path), "doctor", away), gpus=False)
    assert facts.storage == ""
    assert "refused" in facts.tracking
    assert len(list((tmp_path / "doctor").iterdir())) == 2, "it has written there"
    assert "is no directory on this machine" in gather(Asked(f"{tmp_path}/none", "doctor"), gpus=False).storage
    (tmp_path / "doctor" / "driver").unlink()
    assert "is not to be seen" in gather(Asked(str(tmp_path), "doctor"), gpus=False).storage


def test_nodes_that_do_not_answer_or_have_not_our_code_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {
        "a" * 56: THERE,
        "b" * 56: RaySystemError("ModuleNotFoundError: No module named 'obstore'"),
        "c" * 56: None,
    }
    nodes = [
        {"NodeID": id, "Alive": True, "NodeManagerHostname": f"w{place}", "NodeManagerAddress": "10.0.0.1"}
        | {"Resources": RESOURCES}
        for place, id in enumerate(answers)
    ]
    head = nodes[0] | {"NodeManagerHostname": "head", "Resources": {"object_store_memory": 1e9}}

    def remote(**_: object) -> Any:
        def options(scheduling_strategy: Any) -> SimpleNamespace:
            return SimpleNamespace(remote=lambda *_: answers[scheduling_strategy.node_id])

        return lambda _: SimpleNamespace(options=options)

    def get(answer: Any, timeout: float) -> Facts:
        assert timeout == 0
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            raise TimeoutError
        return replace(answer, python=HERE.python, versions=HERE.versions)

    monkeypatch.setattr(examination, "gather", lambda *_, **__: HERE)
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    for name, replaced in {
        "nodes": lambda: [head, *nodes],
        "remote": remote,
        "wait": lambda *_, **__: ([], []),
        "get": get,
    }.items():
        monkeypatch.setattr(ray, name, replaced)
    found = examine(nodes_of_ray(), Needs(str(tmp_path), "sqlite:///x", 10))
    lines = [line for node in found for line in node.in_words()]
    assert [node.host for node in found] == ["w0", "w1", "w2"], "no trial runs on a head without CPUs"
    assert len(lines) == 2
    assert lines[0].startswith("w1 (10.0.0.1): cannot run our code (")
    assert "No module named 'obstore'); install what constraints.txt pins there" in lines[0]
    assert lines[1].startswith("w2 (10.0.0.1): does not answer within 20 s")
    assert list(tmp_path.iterdir()) == [], "nothing is left in the storage"
    assert Node("d", "w3", "x", {}).problems == ()


@pytest.mark.parametrize(
    ("trial", "number", "cpus", "gpus"),
    [
        (None, 1, 16.0, 2.0),
        (ResourcesConfig(cpu=3, gpu=0), 5, 3, 0.0),
        (ResourcesConfig(cpu=1, gpu=0.4), 4, 1, 0.4),
        (ResourcesConfig(cpu=6, gpu=0.25), 2, 6, 0.25),
        (ResourcesConfig(cpu=1, gpu=4), 0, 1, 4.0),
    ],
    ids=["whole", "cores", "shares of a GPU", "cores decide", "no trial fits"],
)
def test_a_node_on_which_trials_run_is_left_out_in_the_shares_that_they_leave(
    monkeypatch: pytest.MonkeyPatch, trial: ResourcesConfig | None, number: int, cpus: float, gpus: float
) -> None:
    held: list[tuple[str, float, float]] = []

    def options(scheduling_strategy: Any, num_cpus: float, num_gpus: float) -> SimpleNamespace:
        def begin() -> SimpleNamespace:
            held.append((scheduling_strategy.node_id, num_cpus, num_gpus))
            return SimpleNamespace(ready=SimpleNamespace(remote=lambda: "ready"))

        return SimpleNamespace(remote=begin)

    monkeypatch.setattr(ray, "remote", lambda _: SimpleNamespace(options=options))
    monkeypatch.setattr(ray, "wait", lambda answers, **_: (answers, []))
    monkeypatch.setattr(ray, "kill", lambda _: held.pop())
    monkeypatch.setattr(examination, "HELD", {})
    node = Node("a" * 56, "w1", "10.0.0.1", RESOURCES)
    leave_out([node], 0, trial)
    assert held == [(node.id, cpus, gpus)] * number
    let_in([node])
    assert held == []
