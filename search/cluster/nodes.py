"""What Ray knows of its nodes."""

from __future__ import annotations

import ray


def dead_nodes() -> frozenset[str]:
    """Ids of nodes that are gone; none where Ray does not run."""
    if not ray.is_initialized():
        return frozenset()
    return frozenset(node["NodeID"] for node in ray.nodes() if not node["Alive"])


def node_is_here(node: str) -> bool:
    """Whether a node cannot be lost without this process: it is this one, or there is no other."""
    if not ray.is_initialized():
        return True
    return len(ray.nodes()) == 1 or node == ray.get_runtime_context().get_node_id()
