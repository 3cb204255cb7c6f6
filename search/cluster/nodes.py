"""What Ray knows about its nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

READ_SECONDS = 5.0


def dead_nodes() -> frozenset[str]:
    """Ids of dead nodes; none where Ray is not running."""
    if not ray.is_initialized():
        return frozenset()
    return frozenset(node["NodeID"] for node in ray.nodes() if not node["Alive"])


def working_nodes() -> list[dict[str, Any]]:
    """Living nodes that trials can run on, as Ray describes them."""
    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]


def is_cluster() -> bool:
    """Whether there are nodes beside this machine, or are to come."""
    return len(ray.nodes()) > 1 or not working_nodes()


def node_here() -> str:
    """Id of the node that this process runs on."""
    return str(ray.get_runtime_context().get_node_id())


def node_is_here(node: str) -> bool:
    """Whether the node cannot die without this process: it is this machine, or the only one."""
    if not ray.is_initialized():
        return True
    return len(ray.nodes()) == 1 or node == node_here()


def read_text_on(node: str, path: Path) -> str:
    """A text file on another living node; "" where there is none, or where the node does not answer."""
    if not ray.is_initialized() or not node or node in dead_nodes() or node_is_here(node):
        return ""
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    answer = ray.remote(num_cpus=0)(_read).options(scheduling_strategy=there).remote(str(path))
    try:
        return str(ray.get(answer, timeout=READ_SECONDS))
    except (RayError, TimeoutError):
        return ""


def _read(path: str) -> str:
    return Path(path).read_text() if Path(path).is_file() else ""
