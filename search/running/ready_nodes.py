"""The nodes that a sweep runs on: those on which nothing was found that would make its trials fail."""

from __future__ import annotations

from pathlib import Path

import ray

from search.cluster.connect import connect
from search.cluster.examination import SECONDS, Needs, Node, examine, leave_out, nodes_of_ray
from search.cluster.nodes import node_here, working_nodes
from search.config.sweep import Sweep
from search.paths import SQLITE, tracking_uri
from search.redaction import redact
from search.running.sweep_frames import SweepFrames
from search.storage.place import Place
from search.terminal import Screen, counted
from vaegan_core.data.frames import FrameSet


def leave_out_unfit(place: Place, sweep: Sweep, frames: SweepFrames, screen: Screen) -> frozenset[str]:
    """Examines the nodes of the cluster, names those that are unfit with their remedies, and leaves them out; their
    ids.

    Raises ValueError where no node is left, or where MLflow is a file on this machine and trials run on others.
    """
    uri = tracking_uri(sweep.config.tracking.uri)
    if {node["NodeID"] for node in working_nodes()} != {node_here()} and uri.startswith(SQLITE):
        raise ValueError(
            f"MLflow's store {redact(uri)} is a file on this machine, which would be lost with it; start a server "
            "(mlflow server) and name it in tracking.uri or MLFLOW_TRACKING_URI"
        )
    with screen.stage("Examining the cluster's nodes"):
        nodes = examine(nodes_of_ray(), needs_of(place, sweep, frames))
    unfit = [node for node in nodes if node.problems]
    lines = [line for node in unfit for line in node.in_words()]
    if len(unfit) == len(nodes):
        raise ValueError("no node of the cluster can run trials:\n  " + "\n  ".join(lines))
    for line in lines:
        screen.say(f"Left out: {line}")
    if unfit:
        screen.say(f"{counted(len(nodes) - len(unfit), 'node')} of {len(nodes)} can run trials.")
    leave_out(unfit, SECONDS)
    return frozenset(node.id for node in unfit)


def needs_of(place: Place, sweep: Sweep, frames: SweepFrames) -> Needs:
    """What the trials of a sweep need of a node."""
    return Needs(
        storage=place.storage if place.is_shared else "",
        tracking=tracking_uri(sweep.config.tracking.uri),
        frames_bytes=frames.frame_set.frames.nbytes,
        gpus=sweep.config.base["train"].get("device") != "cpu",
    )


def examined(storage: str, frames: Path | None) -> list[Node]:
    """The nodes of the cluster that this machine belongs to, each with what is wrong with it. Raises ValueError where
    there is none."""
    connect("auto")
    size = FrameSet.open(frames).frames.nbytes if frames else 0
    try:
        return examine(nodes_of_ray(), Needs(storage, tracking_uri(), size))
    finally:
        ray.shutdown()
