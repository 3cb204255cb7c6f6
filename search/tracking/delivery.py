"""The one process that writes to MLflow while a sweep runs: `python -m search.tracking.delivery SWEEP_DIRECTORY`.

A process of its own, so that neither a slow server nor MLflow's own work ever holds up the driver. It reads the
journal and writes what a person should know to its standard output, one JSON object per line. It ends when its standard
input closes (the driver has died), or when it has delivered everything after the line that asks it to finish.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tenacity import RetryCallState, Retrying, wait_exponential_jitter

from search.config.load import read_sweep
from search.journal.journal import Journal
from search.journal.meta import Meta
from search.journal.outbox import Outbox
from search.paths import JOURNAL_FILE, tracking_uri
from search.redaction import redact

if TYPE_CHECKING:
    from search.tracking.writer import MlflowWriter

IDLE_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 10.0
LONGEST_LAST_WAIT_SECONDS = 2.0
FAILURES_BEFORE_A_WORD = 2
"""A single call may fail because the server closed an idle connection at that moment; that is not worth a message."""
LOCK_FILE = "mlflow.lock"


class Listener:
    """Hears the driver, and its death also while this process imports MLflow, which takes long on a busy machine."""

    def __init__(self) -> None:
        self.finishing = threading.Event()
        """Set by the line that asks to finish."""
        self.stopped = ""
        """Why the sweep ended early, as that line says."""

    def start(self) -> None:
        threading.Thread(target=self._listen, name="listen", daemon=True).start()

    def _listen(self) -> None:
        for line in sys.stdin:
            self.stopped = json.loads(line)["stopped"]
            self.finishing.set()
        os._exit(1)


class Delivery:
    """Keeps MLflow up to date, through every outage, until asked to finish."""

    def __init__(self, directory: Path, say: Callable[[str], None], listener: Listener) -> None:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # retrying is done here
        self.directory = directory
        self._say = say
        self.journal = Journal(directory / JOURNAL_FILE)
        self.sweep = read_sweep(self.journal.meta(Meta.SWEEP), str(directory / JOURNAL_FILE))
        self.uri = tracking_uri(self.sweep.config.tracking.uri)
        self.listener, self.finishing = listener, listener.finishing
        self._writer: MlflowWriter | None = None
        self._troubled = False
        self._num_refused = 0

    def run(self) -> None:
        retrying = Retrying(
            wait=wait_exponential_jitter(initial=1.0, max=LONGEST_WAIT_SECONDS, jitter=1.0),
            sleep=self._wait,
            before_sleep=self._say_trouble,
        )
        while not self.finishing.is_set():
            retrying(self._deliver)
            self._say_recovery()
            self.finishing.wait(IDLE_SECONDS)
        retrying(self._finish)
        self._say_recovery()
        self.journal.close()

    def _deliver(self) -> None:
        if self._writer is None:
            from search.tracking.writer import MlflowWriter

            self._writer = MlflowWriter(self.sweep, self.journal, self.directory, self.uri)
        if self._writer.runs.sent_anew:
            self._writer.runs.sent_anew = False
            self._say(
                f"The run of {self.sweep.config.name} is not in MLflow at {redact(self.uri)} any more. Everything is "
                "sent again, except image grids that had been sent."
            )
        self._writer.deliver()
        self._say_refusals()

    def _finish(self) -> None:
        self._deliver()
        assert self._writer
        self._writer.finish(self.listener.stopped)

    def _wait(self, seconds: float) -> None:
        """Waits between two tries; only briefly once asked to finish, because the driver is waiting then."""
        if self.finishing.is_set():
            threading.Event().wait(min(seconds, LONGEST_LAST_WAIT_SECONDS))
        else:
            self.finishing.wait(seconds)

    def _say_trouble(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        from search.tracking.errors import explain

        self._writer = None  # the next try asks again whether the sweep's run is there
        print(redact("".join(traceback.format_exception(error))), file=sys.stderr, flush=True)
        if not self._troubled and error and state.attempt_number >= FAILURES_BEFORE_A_WORD:
            self._troubled = True
            self._say(
                f"MLflow at {redact(self.uri)} cannot be written to. Training goes on, and unsent data is kept in the "
                f"journal. {explain(error)}"
            )

    def _say_recovery(self) -> None:
        if self._troubled:
            self._troubled = False
            self._say("MLflow can be written to again, and everything up to now has been sent.")

    def _say_refusals(self) -> None:
        refused = Outbox(self.journal).refused()
        if len(refused) > self._num_refused and not self._num_refused:
            self._say(
                f"MLflow rejected {refused[0].what}. It is kept in the journal, and all else goes on; the end says how "
                f"many items were rejected. {refused[0].reason}"
            )
        self._num_refused = len(refused)


def main() -> None:
    """Delivers the sweep in the directory given as the argument until the driver says that it has ended."""
    directory = Path(sys.argv[1])
    to_driver = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # the driver must not read what MLflow prints

    def say(line: str) -> None:
        print(json.dumps({"say": line}), file=to_driver, flush=True)

    listener = Listener()
    listener.start()
    with (directory / LOCK_FILE).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a process that a killed driver left behind is about to end
        try:
            Delivery(directory, say, listener).run()
        except Exception:
            sys.exit(redact(traceback.format_exc()))
    os._exit(0)  # the listening thread would wait for the driver


if __name__ == "__main__":
    main()
