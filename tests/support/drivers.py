"""Drivers of real sweeps in processes of their own, watched through the journal, and killed."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from stores import assert_nothing_wrong_so_far
from sweep_files import NAME, command, environment

from search.journal.journal import Journal


def start(directory: Path, *arguments: str) -> subprocess.Popen[str]:
    log = (directory / "log.txt").open("a")
    return subprocess.Popen(
        command(*arguments), cwd=directory, env=environment(directory), stdout=log, stderr=subprocess.STDOUT, text=True
    )


def wait_until(condition: Callable[[Journal], bool], directory: Path, process: subprocess.Popen[str]) -> None:
    """Until the running sweep's journal fulfills the condition."""
    path, deadline = directory / "runs" / "sweeps" / NAME / "journal.db", time.monotonic() + 150
    while time.monotonic() < deadline:
        assert process.poll() is None, (directory / "log.txt").read_text()
        if path.exists():
            journal = Journal(path)
            try:
                if condition(journal):
                    return
            finally:
                journal.close()
        time.sleep(0.2)
    raise AssertionError(f"it never came to that:\n{(directory / 'log.txt').read_text()}")


def steps_done(journal: Journal) -> int:
    return sum(trial.step for trial in journal.trials())


def kill_tree(process: subprocess.Popen[str], directory: Path) -> None:
    """SIGKILL for the driver alone; what it started notices within seconds, but Ray's agents, which do nothing more."""
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, left = psutil.wait_procs(children, timeout=10)
    ours = [child.cmdline() for child in left if "search.tracking.delivery" in child.cmdline() or is_worker(child)]
    assert ours == []
    for child in left:
        child.kill()
    assert_nothing_wrong_so_far(directory)


def is_worker(process: psutil.Process) -> bool:
    """Whether it is the actor that trains; Ray writes an actor's class into its process title."""
    return "ray::ImplicitFunc" in " ".join(process.cmdline())
