"""The driver's side of delivery.py: starts the process that writes to MLflow, and restarts it if it dies."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

LOG_FILE = "mlflow.log"
RESTART_SECONDS = 5.0


class Tracker:
    """Runs the process that delivers the journal of the sweep in `directory`.

    `say` gets what a person should know, once.
    """

    def __init__(self, directory: Path, say: Callable[[str], None]) -> None:
        self.directory = directory
        self._say = say
        self._closing = False
        self._process: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._keep_alive, name="tracking", daemon=True)
        self._lock = threading.Lock()

    def start(self) -> None:
        self._launch()
        self._thread.start()

    def close(self, timeout: float, stopped: str = "") -> bool:
        """Waits at most `timeout` seconds for the rest to be delivered; returns whether everything has arrived.

        `stopped` says why the sweep ended early, "" if it did not.
        """
        with self._lock:
            self._closing = True
            process = self._process
        if process is None:
            return False
        try:
            if process.poll() is None and process.stdin:
                process.stdin.write(json.dumps({"stopped": stopped}) + "\n")
                process.stdin.flush()
            arrived = process.wait(timeout) == 0
        except (subprocess.TimeoutExpired, BrokenPipeError):
            arrived = False
        self.kill()
        return arrived

    def kill(self) -> None:
        """Ends the process at once; unsent data is kept in the journal."""
        with self._lock:
            self._closing = True
            process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
        self._thread.join(RESTART_SECONDS)

    def _launch(self) -> None:
        with (self.directory / LOG_FILE).open("a") as log:
            self._process = subprocess.Popen(  # -P: a file of the current folder must not stand in for a module
                [sys.executable, "-P", "-m", "search.tracking.delivery", str(self.directory)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C goes to the driver only
            )

    def _keep_alive(self) -> None:
        """Passes on what the process says and restarts it, until it is meant to end."""
        said = False
        while True:
            process = self._process
            if process is None or process.stdout is None:
                return
            for line in process.stdout:
                self._say(json.loads(line)["say"])
            process.wait()
            time.sleep(0 if self._closing else RESTART_SECONDS)
            with self._lock:
                if self._closing:
                    return
                if not said:
                    why = self.directory / LOG_FILE
                    self._say(f"The process that writes to MLflow died (see {why}); another one takes over.")
                    said = True
                self._launch()
