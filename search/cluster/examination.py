"""Every node of a cluster, looked at before a sweep starts: what would make its trials fail, each with its remedy."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from uuid import uuid4

import ray
import requests
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.cluster.nodes import working_nodes
from search.config.sweep_config import ResourcesConfig
from search.redaction import redact
from search.storage.store import StorageUnavailable, Store
from vaegan_core.problems import reason

SECONDS = 20.0
"""For all nodes together."""
MOST_SKEW = 2.0
"""Seconds between the clocks of two nodes: the times of curve points, and of signed requests, are theirs."""
HELD: dict[str, list[Any]] = {}
"""Placeholders by id of their node, which live as long as they are referred to."""
VERSIONS = ("ray", "torch", "torchvision", "numpy", "obstore")


@dataclass(frozen=True)
class Asked:
    """What a node is asked to try."""

    storage: str = ""
    """URI; "" where the sweep has none."""
    token: str = ""
    """Key prefix in the storage of this examination."""
    tracking: str = ""
    """MLflow's address; "" unless it is a server."""


@dataclass(frozen=True)
class Facts:
    """What a node found."""

    host: str
    python: str
    versions: dict[str, str]
    """By package; "" where one is not installed."""
    clock: float
    """Unix time in seconds."""
    gpus: int | None
    """As PyTorch counts them; None where that was not asked."""
    storage: str = ""
    """Why the storage cannot be used there; "" where it can."""
    tracking: str = ""
    """Why MLflow cannot be reached from there; "" where it can."""


@dataclass(frozen=True)
class Node:
    """A node, as Ray describes it, and what is wrong with it."""

    id: str
    host: str
    address: str
    resources: dict[str, float]
    problems: tuple[str, ...] = field(default=())
    answered: bool = True

    @classmethod
    def of(cls, node: Mapping[str, Any]) -> Node:
        """A node, as Ray describes it."""
        return cls(node["NodeID"], node["NodeManagerHostname"], node["NodeManagerAddress"], node["Resources"])

    @property
    def name(self) -> str:
        """Its host, and the address."""
        return f"{self.host} ({self.address})"

    def in_words(self) -> Iterator[str]:
        """A line for each problem."""
        for problem in self.problems:
            yield f"{self.name}: {problem}"


def nodes_of_ray() -> list[Node]:
    """Every living node that trials can run on."""
    return [Node.of(node) for node in working_nodes()]


def gather(asked: Asked, gpus: bool) -> Facts:
    """Runs on a node."""
    token = f"{asked.token}/{uuid4().hex}"
    return Facts(
        host=platform.node(),
        python=platform.python_version(),
        versions={name: _version(name) for name in VERSIONS},
        clock=time.time(),
        gpus=_gpus() if gpus else None,
        storage=_tried(lambda: _use(Store(asked.storage), asked.token, token)) if asked.storage else "",
        tracking=_tried(lambda: _reach(asked.tracking)) if asked.tracking else "",
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _use(store: Store, prefix: str, key: str) -> None:
    """Reads what the driver has written, and writes."""
    if store.read(f"{prefix}/driver") != prefix.encode():
        raise ValueError("what the driver writes there is not to be seen; mount the same directory, or name a bucket")
    store.put(key, b"")


def _reach(uri: str) -> None:
    requests.get(f"{uri.rstrip('/')}/health", timeout=SECONDS / 4).raise_for_status()


def _tried(act: Callable[[], None]) -> str:
    try:
        act()
    except (ValueError, StorageUnavailable, OSError, requests.RequestException) as error:
        return redact(str(error).partition("\n")[0]) or type(error).__name__
    return ""


@dataclass(frozen=True)
class Needs:
    """What trials need of a node."""

    storage: str
    """URI; "" where the sweep has none."""
    tracking: str
    """URI of MLflow's store."""
    frames_bytes: int
    """Size of the frames, which the object store of each node must hold."""
    gpus: bool = True
    """Whether trials use GPUs."""


def examine(nodes: Sequence[Node], needs: Needs) -> list[Node]:
    """Looks at nodes, all at once, for at most 20 seconds; each with what is wrong with it. Ray must be connected.

    Raises StorageUnavailable while the driver itself does not reach the storage, and ValueError where it may not.
    """
    asked = Asked(needs.storage, f"doctor/{uuid4().hex}", needs.tracking if needs.tracking.startswith("http") else "")
    store = Store(needs.storage) if needs.storage else None
    if store:
        store.put(f"{asked.token}/driver", asked.token.encode())
    begun = time.time()
    task = ray.remote(num_cpus=0, max_retries=0)(gather)
    answers = [
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)).remote(
            asked, needs.gpus and bool(node.resources.get("GPU"))
        )
        for node in nodes
    ]
    here = gather(Asked(), gpus=False)
    if answers:
        ray.wait(answers, num_returns=len(answers), timeout=SECONDS)
    found = [
        _judged(node, answer, here, begun, needs.frames_bytes) for node, answer in zip(nodes, answers, strict=True)
    ]
    if store:
        store.delete(store.keys(asked.token))
    return found


def _judged(node: Node, answer: ray.ObjectRef, here: Facts, begun: float, frames_bytes: int) -> Node:
    answered = True
    try:
        facts = ray.get(answer, timeout=0)
    except TimeoutError:
        answered = False
        problems = [f"does not answer within {SECONDS:.0f} s; is it overloaded, or cut off?"]
    except (RayError, ImportError) as error:
        lines = [line for line in str(error).splitlines() if "Error" in line] or [reason(error)]
        problems = [f"cannot run our code ({lines[-1].strip()}); install what constraints.txt pins there"]
    else:
        problems = list(problems_of(facts, here, (begun, time.time()), node.resources, frames_bytes))
    return replace(node, problems=tuple(problems), answered=answered)


def problems_of(
    facts: Facts, here: Facts, asked_between: tuple[float, float], resources: dict[str, float], frames_bytes: int
) -> Iterator[str]:
    """What is wrong with a node that found these facts; `here` are the driver's own."""
    if facts.python != here.python:
        yield f"runs Python {facts.python}, but the driver {here.python}; install the same"
    for name, ours in here.versions.items():
        theirs = facts.versions[name]
        if not theirs:
            yield f"{name} is not installed; install {name}=={ours}"
        elif theirs != ours:
            yield f"has {name} {theirs}, but the driver {ours}; install {name}=={ours}"
    if facts.storage:
        yield f"cannot use the storage: {facts.storage}"
    if facts.tracking:
        yield f"cannot reach MLflow: {facts.tracking}; open its port to this host, or correct tracking.uri"
    earliest, latest = asked_between
    skew = max(earliest - facts.clock, facts.clock - latest)
    if skew > MOST_SKEW:
        yield f"its clock is {skew:,.0f} s off; have it set by NTP (timedatectl set-ntp true)"
    gpus = int(resources.get("GPU", 0))
    if facts.gpus not in (None, gpus):
        yield f"Ray was told of {gpus} GPUs, but PyTorch sees {facts.gpus}; start Ray with --num-gpus={facts.gpus}"
    store = resources.get("object_store_memory", 0.0)
    if store < frames_bytes:
        yield (
            f"its object store has {store / 1e9:.2f} GB, but the frames take {frames_bytes / 1e9:.2f}; start Ray with "
            f"--object-store-memory={round(1.2 * frames_bytes)}"
        )


def _placeholder() -> type:
    """An actor that keeps CPUs and GPUs of a node from trials. It travels as its source does, for it must also begin
    where our code cannot be imported."""

    class Placeholder:
        def ready(self) -> bool:
            return True

    return Placeholder


def leave_out(nodes: Sequence[Node], seconds: float, trial: ResourcesConfig | None = None) -> None:
    """Keeps trials away from nodes until they are let in; waits for that at most some seconds.

    Where trials may run already, `trial` is what one takes: each such share is held as soon as it is free. Otherwise a
    node is held as a whole.
    """
    held = []
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node.id, soft=False)
        cpu, gpu = (
            (trial.cpu, float(trial.gpu)) if trial else (node.resources.get(kind, 0.0) for kind in ("CPU", "GPU"))
        )
        placeholder = ray.remote(_placeholder()).options(scheduling_strategy=there, num_cpus=cpu, num_gpus=gpu)
        HELD[node.id] = [placeholder.remote() for _ in range(trial.fitting(node.resources) if trial else 1)]
        held += HELD[node.id]
    if held:
        ray.wait([actor.ready.remote() for actor in held], num_returns=len(held), timeout=seconds)


def let_in(nodes: Sequence[Node]) -> None:
    """Has trials run again on nodes that were left out."""
    for node in nodes:
        for placeholder in HELD.pop(node.id, []):
            ray.kill(placeholder)
