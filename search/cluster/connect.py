"""Starts Ray here, or connects to a cluster."""

from __future__ import annotations

import os
import socket
from typing import Any

import ray

from search.config.sweep import Sweep
from vaegan_core.problems import reason

CONNECT_SECONDS = 5.0
# Read by Ray when it starts; a user's own settings win.
RAY_ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


def start_ray(sweep: Sweep, address: str | None) -> None:
    """Starts a private local cluster, or connects to the one at `address` (host:port of its head).

    Raises ValueError when it cannot be reached or is too small for one trial.
    """
    for key, value in RAY_ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    check_reachable(address)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False}
    if address is not None:
        options = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        ray.init(address=address or "local", **options)
    except Exception as error:  # a bare one where a process of Ray's does not start in time
        ray.shutdown()
        if address == "auto" and isinstance(error, ConnectionError):
            raise ValueError("no Ray cluster runs on this machine; name its head with --cluster HOST:6379") from None
        where = f"Ray at {address} cannot be reached" if address else "Ray cannot be started on this machine"
        raise ValueError(f"{where}: {_in_words(error)}") from None
    needed = sweep.config.resources
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    available = {kind: max((node.get(kind, 0.0) for node in nodes), default=0.0) for kind in ("CPU", "GPU")}
    for kind, amount in (("CPU", needed.cpu), ("GPU", 0.0 if needed.gpu == "auto" else needed.gpu)):
        if amount > available[kind]:
            ray.shutdown()
            raise ValueError(
                f"one trial needs resources.{kind.lower()} {amount}, but the largest node of Ray has "
                f"{available[kind]:g} {kind}"
            )


def _in_words(error: Exception) -> str:
    """The first line of what Ray says, and what helps where that is known."""
    first = str(error).strip().partition("\n")[0] or type(error).__name__
    if "AF_UNIX path length" in first:
        return f"the path of its temporary directory is too long; set TMPDIR to a shorter one, such as /tmp ({first})"
    if "timed out" in first:
        return f"{first}; the machine may be too busy, try again"
    return first


def check_reachable(address: str | None) -> None:
    """Raises ValueError when nothing listens at host:port; Ray itself would keep trying for minutes."""
    if address is None or address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"--cluster must look like host:port (the head's, usually 6379) or auto, but got {address}")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise ValueError(f"no Ray cluster can be reached at {address}: {reason(error)}") from None
