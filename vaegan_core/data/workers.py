"""Worker processes that survive crashes: the job that killed one is reported, and a new worker takes the next job."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Generic, TypeVar

SILENCE_LIMIT = 120.0
"""Seconds without a message after which a worker counts as hung, and its job as failed."""

INTERRUPTIONS = {signal.SIGINT, signal.SIGTERM}

Job = TypeVar("Job")
Message = TypeVar("Message")


@dataclass
class _Busy(Generic[Job]):
    process: BaseProcess
    connection: Connection
    job: Job
    heard: float = field(default_factory=time.monotonic)


class WorkerPool(Generic[Job, Message]):
    """`size` spawned processes that run `target(connection, directory)`, started when there is work.

    The target receives jobs and answers each with messages; it must end when the connection does. Each process leads
    its own session: Ctrl-C does not reach it, and it is killed together with its children.
    """

    def __init__(self, size: int, target: Callable[[Connection, Path], None], directory: Path, *, more: type) -> None:
        """A message of type `more` is followed by others of the same job; one of any other type is the job's last."""
        self._size = size
        self._target = target
        self._directory = directory
        self._more = more
        self._idle: list[tuple[BaseProcess, Connection]] = []
        self._busy: list[_Busy[Job]] = []

    def __enter__(self) -> WorkerPool[Job, Message]:
        return self

    def __exit__(self, *_: object) -> None:
        _stop([process for process, _ in self._idle] + [w.process for w in self._busy])

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Message | str]]:
        """Yields each message with its job; if the job's worker dies or hangs, the last message is a str that says so.

        Jobs are taken from the iterable only when a worker is free.
        """
        waiting = iter(jobs)
        while True:
            for job in islice(waiting, self._size - len(self._busy)):
                self._start(job)
            if not self._busy:
                return
            ready = wait([w.connection for w in self._busy], timeout=1.0)
            for worker in list(self._busy):
                if worker.connection in ready:
                    yield worker.job, self._receive(worker)
                elif time.monotonic() - worker.heard > SILENCE_LIMIT:
                    yield worker.job, self._discard(worker, f"no message for {SILENCE_LIMIT:.0f} s")

    def _start(self, job: Job) -> None:
        if not self._idle:
            self._spawn()
        process, connection = self._idle.pop()
        self._busy.append(_Busy(process, connection, job))
        with suppress(BrokenPipeError):  # it died while idle, which receiving will report
            connection.send(job)

    def _spawn(self) -> None:
        """Adds an idle worker. Interruptions are held back meanwhile, here and, by inheritance, in the new process."""
        context = multiprocessing.get_context("spawn")
        connection, theirs = context.Pipe()
        process = context.Process(target=_begin, args=(self._target, theirs, self._directory), daemon=True)
        resource_tracker.ensure_running()  # starting it would let the signals through
        before = signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTIONS)
        try:
            process.start()
            theirs.close()
            self._idle.append((process, connection))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _receive(self, worker: _Busy[Job]) -> Message | str:
        try:
            message: Message = worker.connection.recv()
        except (EOFError, ConnectionResetError):
            worker.process.join(5)
            return self._discard(worker, f"worker process died (exit code {worker.process.exitcode})")
        worker.heard = time.monotonic()
        if not isinstance(message, self._more):
            self._busy.remove(worker)
            self._idle.append((worker.process, worker.connection))
        return message

    def _discard(self, worker: _Busy[Job], reason: str) -> str:
        self._busy.remove(worker)
        _stop([worker.process])
        return reason


def _begin(target: Callable[[Connection, Path], None], connection: Connection, directory: Path) -> None:
    os.setsid()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    target(connection, directory)


def _stop(processes: list[BaseProcess]) -> None:
    """Ends workers and their children: first politely, so that they can remove their files, then for good."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(3)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.kill()
        process.join()
