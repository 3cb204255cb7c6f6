"""The process of a Ray job: starts the driver on the head, and starts it again when it dies, since Ray runs a job once.

`python -m search.cluster.job '["JOB", "URL", "sweep", "sweep.yaml", …]'`: the arguments of `vaegan` follow the job's
name and the cluster's address, as it was typed.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from search.advice import resume_command
from search.names import ASKED, JOB, JOB_OPTIONS, STORAGE_AWAY, SUBMITTED, Artifact
from search.storage.frames import fetch_frames
from search.storage.store import StorageUnavailable, Store
from vaegan_core.strict_yaml import load_yaml


@dataclass(frozen=True)
class Patience:
    """How often in the life of a job its driver is started again, and how long after its end."""

    most: int
    seconds: float


AFTER_DEATH = Patience(5, 5.0)
AFTER_OUTAGE = Patience(60, 30.0)
"""Where it did not reach its storage: outages of half an hour in all, and more, since each start waits for answers."""
DELIBERATE = (0, 1, 2, 130)
"""Exit codes of a driver that ended by itself: done, cannot, must be changed, stopped."""
LOOK_SECONDS = 0.1
HOME = Path("~/vaegan")
"""Where sweeps lie on the head while they run: `runs/` is below."""


def main(words: Sequence[str]) -> int:
    """Runs `vaegan` with these arguments, after the job's name and the cluster, to its end; its exit code."""
    id, cluster, command, *arguments = words
    home = HOME.expanduser()
    home.mkdir(parents=True, exist_ok=True)
    os.chdir(home)
    os.environ[JOB], os.environ[ASKED] = id, uuid.uuid4().hex
    if command == "doctor":
        return subprocess.run([sys.executable, "-m", "search.cli", command, *arguments], check=False).returncode
    name = arguments[0]
    os.environ[JOB_OPTIONS] = f" --cluster {cluster} --storage {shlex.quote(_storage(arguments))}"
    again = [command, *arguments]
    if command == "sweep":
        try:
            name, arguments = prepare(arguments, print)
        except (OSError, ValueError) as error:
            print(f"Error: {error}")
            return STORAGE_AWAY if isinstance(error, StorageUnavailable) else 1
        again = [command, *arguments, "--resume"]  # it may have ended before there was a sweep
    return restarted([command, *arguments], again, name, print)


def prepare(arguments: Sequence[str], say: Callable[[str], None]) -> tuple[str, list[str]]:
    """Name of the submitted sweep and the arguments for it, with its YAML and its frames on this machine; waits for a
    storage that does not answer."""
    file = Path(str(import_module(SUBMITTED).__file__)).with_name(str(Artifact.SWEEP))
    sweep = load_yaml(file)
    store, wait = Store(_storage(arguments)), AFTER_OUTAGE
    fetching = Retrying(
        retry=retry_if_exception_type(StorageUnavailable),
        wait=wait_fixed(wait.seconds),
        stop=stop_after_attempt(wait.most),
        before_sleep=lambda tried: say(
            f"{tried.outcome and tried.outcome.exception()}; it is tried again in {wait.seconds:.0f} s."
        ),
        reraise=True,
    )
    fetching(fetch_frames, store, Path(sweep["base"]["frames"]).name)
    return sweep["name"], [str(file), *arguments[1:]]


def _storage(arguments: Sequence[str]) -> str:
    return arguments[arguments.index("--storage") + 1]


def restarted(first: Sequence[str], again: Sequence[str], name: str, say: Callable[[str], None]) -> int:
    """Exit code of the first command that ends by itself; after one that did not, the other command runs. `name` is the
    sweep's."""
    child: subprocess.Popen[bytes] | None = None
    stopped = 0

    def stop(number: int, _: object) -> None:
        nonlocal stopped
        stopped = number
        if child is not None:
            child.send_signal(number)  # Ray has sent it SIGTERM as well, which counts once

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    command, starts = first, Counter[Patience]()
    while not stopped:
        child = subprocess.Popen([sys.executable, "-m", "search.cli", *command])
        if stopped:
            child.send_signal(stopped)  # it came before there was a child to send it to
        code = child.wait()
        if code in DELIBERATE or stopped:
            return code if code >= 0 else 128 - code
        is_away = code == STORAGE_AWAY
        patience = AFTER_OUTAGE if is_away else AFTER_DEATH
        starts[patience] += 1
        cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        how = "did not reach its storage" if is_away else f"died ({cause})"
        if starts[patience] > patience.most:
            often = f"{starts[patience]} times"
            say(f"The driver {how} {often}. Once the cause is fixed, continue with: {resume_command(name)}")
            return STORAGE_AWAY if is_away else 1
        often = f"in {patience.seconds:.0f} s ({starts[patience]} of {patience.most})"
        say(f"The driver {how}; it is started again {often}.")
        for _ in range(round(patience.seconds / LOOK_SECONDS)):
            if not stopped:
                time.sleep(LOOK_SECONDS)
        command = again
    return 128 + stopped


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
