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
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from search.advice import resume_command
from search.names import JOB, JOB_OPTIONS, SUBMITTED, Artifact
from search.storage.frames import fetch_frames
from search.storage.store import Store
from vaegan_core.strict_yaml import load_yaml

MOST_STARTS = 6
"""The first, and five after the driver died."""
DELIBERATE = (0, 1, 2, 130)
"""Exit codes of a driver that ended by itself: done, cannot, must be changed, stopped."""
AGAIN_SECONDS = 5.0
HOME = Path("~/vaegan")
"""Where sweeps lie on the head while they run: `runs/` is below."""


def main(words: Sequence[str]) -> int:
    """Runs `vaegan` with these arguments, after the job's name and the cluster, to its end; its exit code."""
    id, cluster, command, *arguments = words
    home = HOME.expanduser()
    home.mkdir(parents=True, exist_ok=True)
    os.chdir(home)
    os.environ[JOB] = id
    if command == "doctor":
        return subprocess.run([sys.executable, "-m", "search.cli", command, *arguments], check=False).returncode
    name = arguments[0]
    os.environ[JOB_OPTIONS] = f" --cluster {cluster} --storage {shlex.quote(_storage(arguments))}"
    if command == "sweep":
        name, arguments = prepare(arguments)
    again = ["resume", name, "--storage", _storage(arguments), "--cluster", "auto"]
    return restarted([command, *arguments], again, print)


def prepare(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Name of the submitted sweep and the arguments for it, with its YAML and its frames on this machine."""
    file = Path(str(import_module(SUBMITTED).__file__)).with_name(str(Artifact.SWEEP))
    sweep = load_yaml(file)
    fetch_frames(Store(_storage(arguments)), Path(sweep["base"]["frames"]).name)
    return sweep["name"], [str(file), *arguments[1:]]


def _storage(arguments: Sequence[str]) -> str:
    return arguments[arguments.index("--storage") + 1]


def restarted(first: Sequence[str], again: Sequence[str], say: Callable[[str], None]) -> int:
    """Exit code of the first command that ends by itself; after one that died, the other command runs."""
    child: subprocess.Popen[bytes] | None = None
    stopping = False

    def stop(number: int, _: object) -> None:
        nonlocal stopping
        stopping = True
        if child is not None:
            child.send_signal(number)  # Ray has sent it SIGTERM as well, which counts once

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    code = 1
    for start in range(MOST_STARTS):
        command = first if not start else again
        child = subprocess.Popen([sys.executable, "-m", "search.cli", *command], start_new_session=True)
        code = child.wait()
        if code in DELIBERATE or stopping:
            return code if code >= 0 else 128 - code
        if start + 1 < MOST_STARTS:
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            say(f"The driver died ({how}); it is started again ({start + 1} of {MOST_STARTS - 1}).")
            time.sleep(AGAIN_SECONDS)
    say(f"The driver died {MOST_STARTS} times. Once the cause is fixed, continue with: {resume_command(again[1])}")
    return 1


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
