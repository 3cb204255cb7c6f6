"""The lease of a directory: whoever changes what is in it holds the lease, and whoever only looks never takes it."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK_FILE = "driver.lock"
_FLOCK = "hhqqi4x"
"""C's struct flock on 64-bit Linux: type, whence, start, length, process."""
_held: set[Path] = set()
"""Lock files that this process holds alone."""


@contextmanager
def lease(directory: Path, *, what: str = "the sweep", shared: bool = False) -> Iterator[None]:
    """Keeps every other process out, or only those that do not share; the kernel ends it however this process ends.

    A process that holds it alone may share it with itself. Raises ValueError while another process holds it.
    """
    path = (directory / LOCK_FILE).resolve()
    if shared and path in _held:
        yield
        return
    with path.open("a") as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"another process is running {what} in {directory}; wait for it or stop it") from None
        if not shared:  # a flock cannot be asked for without being taken, this one can
            fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
            _held.add(path)
        try:
            yield
        finally:
            _held.discard(path)


def is_running(directory: Path) -> bool:
    """Whether a process holds the lease. Takes nothing, so that nobody who starts at this moment is refused."""
    path = directory / LOCK_FILE
    if not path.is_file():
        return False
    with path.open("rb") as file:
        asked = struct.pack(_FLOCK, fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
        kind, *_ = struct.unpack(_FLOCK, fcntl.fcntl(file, fcntl.F_OFD_GETLK, asked))
        return bool(kind != fcntl.F_UNLCK)
