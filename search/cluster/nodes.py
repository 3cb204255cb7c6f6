"""What Ray knows about its nodes."""

from __future__ import annotations

import ray


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
