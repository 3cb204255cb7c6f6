"""Starts Ray here, or connects to a cluster."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray._private import worker

from search.cluster.demand import ask_for
from search.cluster.nodes import working_nodes
from search.config.sweep import Sweep
from search.terminal import errors

CONNECT_SECONDS = 30.0
NODE_SECONDS = 900.0
"""How long an autoscaler may take for the first node."""
# Read by Ray when it starts; a user's own settings win.
RAY_ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "10000",  # else workers start one after another; the searcher knows the slots
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}
ALWAYS = {"RAY_TRAIN_COUNT_PREEMPTION_AS_FAILURE": "1"}
"""Whatever a user sets: else Tune begins an attempt again whose node was taken back, from its first state and in its
folder, and tells nobody. `search/running/failures.py` forgives a lost node."""
ON_A_CLUSTER = {"RAY_BACKEND_LOG_LEVEL": "fatal"}
"""This process's own part of Ray then says nothing of nodes that are lost; on a cluster it starts no other."""


def find_room(sweep: Sweep, address: str | None, say: Callable[[str], None]) -> None:
    """Ensures that the Ray that was connected by `address` has room for a trial. Where no node is there yet and
    `resources.max_concurrent` is set, an autoscaler is asked for the first.

    Raises ValueError when it is too small for one trial.
    """
    needed = sweep.config.resources
    if address is not None and needed.max_concurrent and not working_nodes():
        say(f"No node can run trials yet; waiting up to {NODE_SECONDS / 60:.0f} minutes for the autoscaler's first.")
        ray.wait(ask_for(needed, 1), timeout=NODE_SECONDS)  # a running sweep asks for the others
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    available = {kind: max((node.get(kind, 0.0) for node in nodes), default=0.0) for kind in ("CPU", "GPU")}
    for kind, amount in (("CPU", needed.cpu), ("GPU", 0.0 if needed.gpu == "auto" else needed.gpu)):
        if amount > available[kind]:
            ray.shutdown()
            raise ValueError(
                f"one trial needs resources.{kind.lower()} {amount}, but the largest node of Ray has "
                f"{available[kind]:g} {kind}"
            )


def connect(address: str | None) -> None:
    """Starts a private local cluster, or connects to the one that this machine belongs to (`address` is auto). Raises
    ValueError when that cannot be."""
    for key, value in (RAY_ENVIRONMENT | (ON_A_CLUSTER if address else {})).items():
        os.environ.setdefault(key, value)
    os.environ.update(ALWAYS)
    # Prints what raylets say of lost nodes, with stack traces; what that means for trials, the driver says.
    vars(worker)["listen_error_messages"] = lambda *_: None
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        options["include_dashboard"] = False
    try:
        with at_most(CONNECT_SECONDS if address else None):
            ray.init(address=address or "local", **options)
    except Exception as error:  # a bare one where a process of Ray's does not start in time
        ray.shutdown()
        if address == "auto" and isinstance(error, ConnectionError):
            raise ValueError(
                "no Ray cluster runs on this machine; run this on a machine of the cluster, or submit it as a job with "
                "--cluster http://HEAD:8265"
            ) from None
        where = f"Ray at {address} cannot be reached" if address else "Ray cannot be started on this machine"
        raise ValueError(f"{where}: {_in_words(error)}") from None


def _in_words(error: Exception) -> str:
    """The first line of what Ray says, and what helps where that is known."""
    first = str(error).strip().partition("\n")[0] or type(error).__name__
    if "AF_UNIX path length" in first:
        return f"the path of its temporary directory is too long; set TMPDIR to a shorter one, such as /tmp ({first})"
    if first.startswith("Version mismatch"):
        theirs, ours = str(error).split("This process", 1)
        return f"it runs {_versions(theirs)}, but this process {_versions(ours)}; install the same versions on both"
    if "timed out" in first:
        return f"{first}; the machine may be too busy, try again"
    return first


def _versions(told: str) -> str:
    """As in "Ray 2.60.0 and Python 3.11.7", from the lines that Ray has on each."""
    return " and ".join(line.strip().replace(":", "") for line in told.splitlines() if line.startswith("    "))


@contextmanager
def at_most(seconds: float | None) -> Iterator[None]:
    """Ends this process, with a line that says why, when what is inside takes longer: Ray's own code, which cannot be
    interrupted, would try for minutes."""
    if seconds is None:
        yield
        return

    def end() -> None:
        errors.say(f"Error: Ray does not answer within {seconds:.0f} s; is the cluster's head alive?", style="red")
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
