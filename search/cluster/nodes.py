"""What Ray knows about its nodes."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


def dead_nodes() -> frozenset[str]:
    """Ids of dead nodes; none where Ray is not running."""
    if not ray.is_initialized():
        return frozenset()
    return frozenset(node["NodeID"] for node in ray.nodes() if not node["Alive"])


def node_is_here(node: str) -> bool:
    """Whether the node cannot die without this process: it is this machine, or the only one."""
    if not ray.is_initialized():
        return True
    return len(ray.nodes()) == 1 or node == ray.get_runtime_context().get_node_id()


def check_shared(directory: Path) -> None:
    """Raises ValueError naming the nodes that do not see this `directory`: checkpoints and weights would stay there."""
    token = directory.resolve() / "shared.txt"
    token.write_text(uuid4().hex)
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    task = ray.remote(num_cpus=0)(_read)
    answers = {
        node["NodeManagerHostname"]: task.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(str(token))
        for node in nodes
    }
    apart = [host for host, answer in answers.items() if not _is(answer, token.read_text())]
    token.unlink()
    if apart:
        raise ValueError(
            f"{directory.resolve()} must lie on storage that every node shares, at the same path, but it is not there "
            f"on {', '.join(apart)}"
        )


def _read(path: str) -> str:
    return Path(path).read_text() if Path(path).is_file() else ""


def _is(answer: ray.ObjectRef, text: str) -> bool:
    try:
        return bool(ray.get(answer) == text)
    except RayError:
        return False
