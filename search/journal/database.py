"""A journal's SQLite file: opened, created whole or not at all, brought up to this version."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from search.journal.meta import Meta
from search.journal.schema import MIGRATIONS, SCHEMA, SCHEMA_VERSION
from search.lease import lease
from vaegan_core.files import sync_directory

JournalError = sqlite3.Error
"""What any read or write of a journal may raise: a full disk, a missing or damaged file."""


SHIPPED_LOG = "PRAGMA wal_autocheckpoint = 16384"
"""For every connection to a journal that lives in a storage: the log begins anew after 64 MB, not after 4. What is
shipped is the log, and a whole copy of the journal each time it begins anew."""
TABLES = {"meta", "trials", "attempts", "evaluations", "points", "images"}
"""What every version has."""
NO_JOURNAL = (
    "is damaged, or no journal of a sweep. Put a copy of it back; or move its directory away, and continue the sweep "
    "from its storage if it has one (vaegan resume NAME --storage URI)"
)


class Database:
    """One connection; a thread that reads or writes beside the driver opens its own."""

    def __init__(self, path: Path) -> None:
        """Opens the journal at `path`, upgrading one of an earlier version. Raises ValueError where that cannot be."""
        if not path.is_file():
            raise ValueError(f"no sweep here: {path} does not exist")
        self.path = path
        self.db = sqlite3.connect(path, isolation_level=None, timeout=60)
        self.db.row_factory = sqlite3.Row
        try:
            self.db.execute("PRAGMA journal_mode=WAL")
            self.db.execute("PRAGMA synchronous=FULL")  # what a commit acknowledged survives a power cut
            tables = {name for (name,) in self.db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        except sqlite3.DatabaseError as error:
            self.db.close()
            if error.sqlite_errorcode not in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
                raise
            raise ValueError(f"{path} {NO_JOURNAL}") from None
        if TABLES - tables:
            self.db.close()
            raise ValueError(f"{path} {NO_JOURNAL}")
        if self._version() != SCHEMA_VERSION:
            self._upgrade()
        if self.meta(Meta.STORAGE, ""):
            self.db.execute(SHIPPED_LOG)

    @classmethod
    def create(cls, path: Path, **meta: str) -> Self:
        """A new journal, there whole or not at all. Raises FileExistsError where there is one."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=path.parent) as directory:
            temporary = Path(directory) / path.name
            db = sqlite3.connect(temporary, isolation_level=None)
            db.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
            db.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
            db.close()
            os.link(temporary, path)
        sync_directory(path.parent)
        return cls(path)

    def close(self) -> None:
        self.db.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Everything in it is there or nothing is, also what has a transaction of its own inside."""
        if self.db.in_transaction:
            yield self.db
            return
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield self.db
        except BaseException:
            if self.db.in_transaction:  # SQLite has rolled back by itself when the disk was full
                self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")

    def meta(self, key: str, default: str | None = None) -> str:
        """A value written with `set_meta` or at creation. Raises KeyError when there is none and no default."""
        row = self.db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        if row is None and default is None:
            raise KeyError(key)
        return str(row["value"]) if row is not None else str(default)

    def set_meta(self, key: str, value: str) -> None:
        self.db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def _version(self) -> int:
        return int(self.db.execute("PRAGMA user_version").fetchone()[0])

    def _upgrade(self) -> None:
        """Applies every migration that is due, in one transaction; a second process finds nothing left to do.

        Raises ValueError while a driver of the earlier version runs the sweep.
        """
        version = self._version()
        if version not in MIGRATIONS and version != SCHEMA_VERSION:
            self.close()
            known = f"{min(MIGRATIONS)} to {SCHEMA_VERSION}"
            cure = "update vaegan-search" if version > SCHEMA_VERSION else "use an earlier commit"
            raise ValueError(
                f"{self.path} has journal version {version}, but this vaegan-search reads versions {known}; {cure}"
            )
        with lease(self.path.parent, shared=True), self.transaction() as db:
            for step in range(self._version(), SCHEMA_VERSION):
                MIGRATIONS[step](db)
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
