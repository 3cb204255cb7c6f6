"""MLflow's web pages for the store that sweeps write to."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from urllib.parse import urlsplit

from search.names import TRAINING_VIEW
from search.tracking.client import open_existing
from search.tracking.reader import find_sweep


def page_of(uri: str, name: str | None) -> str:
    """Path of a sweep in the web pages; without a name, that of the start page. Raises ValueError if there is no such
    sweep."""
    client = open_existing(uri)
    if name is None:
        return f"/#/experiments{TRAINING_VIEW}"
    sweep = find_sweep(client, name)
    return f"/#/experiments/{sweep.experiment_id}/runs/{sweep.run_id}{TRAINING_VIEW}"


def is_server(uri: str) -> bool:
    """Whether a tracking URI is a server's, which serves its own web pages."""
    return urlsplit(uri).scheme in ("http", "https")


def check_free(host: str, port: int) -> None:
    """Raises ValueError if this process may not listen there, or another one does already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ValueError(f"cannot listen on {host}:{port}: {error.strerror}; choose another with --port") from None


def serve(uri: str, host: str, port: int) -> int:
    """Runs MLflow's server until it ends and returns its exit code.

    The store's URI, which may hold a password, is passed in the environment, where other users cannot see it.
    """
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_BACKEND_STORE_URI": uri}
    where = ["--host", host, "--port", str(port), "--workers", "1"]
    command = [sys.executable, "-m", "mlflow", "server", *where]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the server ends with us
    server = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        return server.wait()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait()
