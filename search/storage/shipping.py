"""A journal on its way to a storage while it is written, and back from there on another machine.

The journal stays SQLite on the driver's own disk. What is shipped is what SQLite itself writes: a base, a copy of the
database, and after it the write-ahead log in segments, each what was committed since the segment before. A base and
its segments are a generation; put side by side, SQLite recovers from them every commit that was shipped, whoever made
it. A new generation begins when the log has grown long, and when SQLite has begun its log anew, which it does as rarely
(SHIPPED_LOG).

File formats: https://www.sqlite.org/walformat.html.
"""

from __future__ import annotations

import gzip
import os
import shutil
import sqlite3
import struct
import time
import zlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import BinaryIO

from search.journal.database import SHIPPED_LOG
from search.storage.store import Store
from vaegan_core.files import sync_directory

LONGEST_LOG = 64 * 2**20
"""Bytes of a log after which a new generation begins."""
COMPRESSION = 3
BASE = "base.gz"
TOUCH = "INSERT OR REPLACE INTO meta VALUES ('shipped', ?)"
"""A commit that changes nothing of the sweep: it begins the log, whose name is in its header."""
INDEX = struct.Struct("=16xII8x8s")
"""The log's index from its start: the last committed frame, pages of the database, salt of the log."""
INDEX_BYTES, LOG_HEADER, FRAME_HEADER = 48, 32, 24


@dataclass(frozen=True)
class Log:
    """How far a write-ahead log is committed."""

    salt: bytes
    """Another one for each log that is begun."""
    end: int
    """Bytes."""


@dataclass(frozen=True)
class Segment:
    """A part of a log, from byte `start` to `end`, shipped at a Unix time in seconds."""

    start: int
    end: int
    time: float

    @property
    def name(self) -> str:
        return f"{self.start:012d}-{self.end:012d}-{self.time:.0f}.gz"

    @classmethod
    def of(cls, key: str) -> Segment:
        start, end, shipped = PurePosixPath(key).stem.split("-")
        return cls(int(start), int(end), float(shipped))


class Shipper:
    """Ships the journal at `path` to `prefix`/journal. It belongs to one thread."""

    def __init__(self, path: Path, store: Store, prefix: str, epoch: int) -> None:
        """`epoch` is the lease's: what a driver ships that has lost it lies below what its successor ships."""
        self.path = path
        self.store = store
        self.prefix = f"{prefix}/journal"
        self.epoch = epoch
        self.db = sqlite3.connect(path, isolation_level=None, timeout=60)
        self.db.execute(SHIPPED_LOG)
        self._generation = 0
        self._log = Log(b"", 0)

    def ship(self, now: Callable[[], float] = time.time) -> bool:
        """Ships what was committed since the last call; whether the storage has all of it, or the next call must try
        again. What it raises leaves everything for the next call."""
        return bool(self._generation and self._send(now())) or self._begin()

    def newest_point(self) -> int:
        """Id of the last curve point in the journal."""
        return int(self.db.execute("SELECT COALESCE(MAX(id), 0) FROM points").fetchone()[0])

    def note_points(self, last: int) -> None:
        """Notes up to which curve point the storage has the journal."""
        self.db.execute("INSERT OR REPLACE INTO meta VALUES ('shipped_points', ?)", (str(last),))

    def close(self) -> None:
        self.db.close()

    def _send(self, now: float) -> bool:
        """Ships the next segment; False where a new generation must begin instead."""
        log = read_log(self.path)
        if log.salt != self._log.salt or log.end > LONGEST_LOG:
            return False
        if log.end == self._log.end:
            return True
        with _log_of(self.path).open("rb") as file:
            file.seek(self._log.end)
            content = file.read(log.end - self._log.end)
        if read_log(self.path).salt != log.salt:  # begun anew while it was read
            return False
        segment = Segment(self._log.end, log.end, now)
        self.store.put(self._key(self._generation, segment.name), gzip.compress(content, COMPRESSION))
        self._log = log
        return True

    def _begin(self) -> bool:
        """A new generation, unless SQLite begins the log anew meanwhile; whether there is one.

        Its base may be newer than the log's beginning: a log that is longer than what the base has of it brings every
        page that it touches to its last state.
        """
        self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.db.execute(TOUCH, (str(self._generation + 1),))
        salt = read_log(self.path).salt
        with TemporaryDirectory(dir=self.path.parent) as directory:
            copy, base = Path(directory) / "copy", Path(directory) / BASE
            with closing(sqlite3.connect(copy)) as other:
                self.db.backup(other)
            with copy.open("rb") as plain, gzip.open(base, "wb", COMPRESSION) as packed:
                shutil.copyfileobj(plain, packed)
            if read_log(self.path).salt != salt:
                return False
            self.store.put(self._key(self._generation + 1, BASE), base)
        self._generation, self._log = self._generation + 1, Log(salt, 0)
        older = self._key(self._generation, "")
        self.store.delete(key for key in self.store.keys(self.prefix) if key < older)
        return True

    def _key(self, generation: int, name: str) -> str:
        return f"{self.prefix}/{self.epoch:06d}-{generation:06d}/{name}"


def read_log(path: Path) -> Log:
    """The committed part of the log of the database at `path`, which must be open in this process."""
    index = _index_of(path)
    while True:
        header = os.pread(index, 2 * INDEX_BYTES, 0)
        if header[:INDEX_BYTES] == header[INDEX_BYTES:]:  # not just being written
            break
    last_frame, _, salt = INDEX.unpack_from(header)
    page = int.from_bytes(header[14:16], "little" if struct.pack("=H", 1)[0] else "big")
    page = 65536 if page == 1 else page
    return Log(salt, LOG_HEADER + last_frame * (FRAME_HEADER + page) if last_frame else 0)


_INDICES: dict[tuple[int, int], int] = {}
"""Descriptors by device and inode. None is ever closed: that would drop the locks that SQLite holds on the same file in
this process (POSIX), and another process would begin the index anew under it."""


def _index_of(path: Path) -> int:
    """Descriptor of the index of the log of the database at `path`."""
    index = path.with_name(f"{path.name}-shm")
    status = index.stat()
    key = status.st_dev, status.st_ino
    if key not in _INDICES:
        _INDICES[key] = os.open(index, os.O_RDONLY)
    return _INDICES[key]


def epoch_of_journal(store: Store, prefix: str) -> int:
    """Epoch of the driver that shipped last; 0 where none has."""
    bases = [key for key in store.keys(f"{prefix}/journal") if key.endswith(f"/{BASE}")]
    return int(PurePosixPath(bases[-1]).parent.name.partition("-")[0]) if bases else 0


def suffixed(path: Path) -> tuple[Path, ...]:
    """All files of a SQLite database."""
    return path, *(path.with_name(f"{path.name}{suffix}") for suffix in ("-wal", "-shm"))


def restore(store: Store, prefix: str, path: Path) -> float:
    """Writes the journal that was shipped to `path`, whole or not at all; returns when its last segment was shipped, as
    Unix time in seconds, 0 for a base alone.

    Raises ValueError where none was shipped, or what was shipped is damaged.
    """
    keys = store.keys(f"{prefix}/journal")
    bases = [key for key in keys if key.endswith(f"/{BASE}")]
    if not bases:
        raise ValueError(f"there is no journal of this sweep in {store.uri}")
    generation = PurePosixPath(bases[-1]).parent
    segments = {Segment.of(key): key for key in keys if PurePosixPath(key).parent == generation and key not in bases}
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent) as directory:
        database = Path(directory) / path.name
        with database.open("wb") as file:
            _unpack(store, bases[-1], file)
        last = Segment(0, 0, 0.0)
        with _log_of(database).open("wb") as log:
            while following := [each for each in segments if each.start == last.end]:
                last = max(following, key=lambda each: each.end)  # one whose answer was lost is sent again, longer
                _unpack(store, segments[last], log)
        _recover(database, store.uri)
        os.replace(database, path)
    sync_directory(path.parent)
    return last.time


def _unpack(store: Store, key: str, into: BinaryIO) -> None:
    """Writes the content of a packed object to the file `into`."""
    packed = Path(f"{into.name}.gz")
    if not store.download(key, packed):
        raise ValueError(f"{key} was deleted from {store.uri} while it was read; try again")
    try:
        with gzip.open(packed) as plain:
            shutil.copyfileobj(plain, into)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{key} in {store.uri} is damaged: {error}") from None


def _recover(database: Path, uri: str) -> None:
    """Has SQLite take the log into the database."""
    try:
        with closing(sqlite3.connect(database, isolation_level=None)) as db:
            problems = [row[0] for row in db.execute("PRAGMA integrity_check(1)")]
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.DatabaseError as error:
        problems = [str(error)]
    if problems != ["ok"]:
        raise ValueError(f"the journal in {uri} is damaged: {problems[0]}")


def _log_of(database: Path) -> Path:
    return database.with_name(f"{database.name}-wal")
