"""A journal in a storage is the journal, whoever writes it, whatever interrupts the shipping."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sweeps import make_journal

from search.journal.journal import Journal
from search.journal.meta import Meta
from search.storage import shipping
from search.storage.shipping import Shipper, restore
from search.storage.store import StorageUnavailable, Store

SWEEP = "sweeps/demo"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "storage").mkdir()
    return Store(str(tmp_path / "storage"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "journal.db"
    with closing(opened(path)) as db:
        db.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT)")
        db.execute("CREATE TABLE points (id INTEGER PRIMARY KEY, value TEXT)")
    return path


def opened(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, timeout=60)
    db.execute("PRAGMA journal_mode=WAL")
    return db


def rows(path: Path) -> list[tuple[int, str]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT * FROM points ORDER BY id").fetchall()


def add(db: sqlite3.Connection, count: int, draw: random.Random) -> None:
    for _ in range(count):
        db.execute("INSERT INTO points (value) VALUES (?)", ("x" * draw.randrange(3000),))


@pytest.mark.parametrize("seed", range(12))
def test_what_was_shipped_is_what_is_restored(seed: int, path: Path, store: Store, tmp_path: Path) -> None:
    """Two writers, of which one checkpoints when it likes, and a driver that begins anew now and then."""
    draw = random.Random(seed)
    epoch, shipper = 1, Shipper(path, store, SWEEP, 1)
    with closing(opened(path)) as driver, closing(opened(path)) as delivery:
        delivery.execute("PRAGMA wal_autocheckpoint=5")
        for turn in range(40):
            add(driver, draw.randrange(4), draw)
            add(delivery, draw.randrange(2), draw)
            if draw.random() < 0.1:
                driver.execute("DELETE FROM points WHERE id % 7 = ?", (draw.randrange(7),))
            if draw.random() < 0.1:
                driver.execute(f"PRAGMA wal_checkpoint({draw.choice(['PASSIVE', 'RESTART', 'TRUNCATE'])})")
            if draw.random() < 0.1:
                shipper.close()
                epoch += 1
                shipper = Shipper(path, store, SWEEP, epoch)
            shipper.ship(now=lambda turn=turn: turn)
            restore(store, SWEEP, tmp_path / "restored.db")
            assert rows(tmp_path / "restored.db") == rows(path)
    shipper.close()


def test_twenty_megabytes_of_commits_are_sent_with_one_copy_of_the_journal(store: Store, tmp_path: Path) -> None:
    first = make_journal(tmp_path)
    first.set_meta(Meta.STORAGE, store.uri)
    first.close()
    path, begun = tmp_path / "journal.db", set()
    with (
        closing(Journal(path)) as driver,
        closing(Journal(path)) as delivery,
        closing(Shipper(path, store, SWEEP, 1)) as s,
    ):
        for turn in range(100):
            driver.set_meta("driver", f"{turn}" * 50_000)
            delivery.set_meta("delivery", f"{turn}" * 50_000)
            assert s.ship()
            s.note_points(turn)
            begun |= {key for key in store.keys(SWEEP) if key.endswith("/base.gz")}
    assert len(begun) == 1


def test_a_transaction_that_is_not_committed_is_not_shipped(path: Path, store: Store, tmp_path: Path) -> None:
    with closing(opened(path)) as driver, closing(Shipper(path, store, SWEEP, 1)) as shipper:
        add(driver, 3, random.Random(0))
        shipper.ship()
        driver.execute("PRAGMA cache_size=2")  # spills into the log before the commit
        driver.execute("BEGIN IMMEDIATE")
        add(driver, 200, random.Random(0))
        shipper.ship()
        restore(store, SWEEP, tmp_path / "restored.db")
        assert len(rows(tmp_path / "restored.db")) == 3
        driver.execute("COMMIT")
        shipper.ship()
        restore(store, SWEEP, tmp_path / "restored.db")
        assert len(rows(tmp_path / "restored.db")) == 203


@pytest.mark.parametrize("seed", range(6))
def test_a_storage_that_fails_loses_nothing(
    seed: int, path: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw, put = random.Random(seed), Store.put

    def failing(self: Store, key: str, content: bytes | Path) -> None:
        if draw.random() < 0.3:
            raise StorageUnavailable("away")
        put(self, key, content)
        if draw.random() < 0.2:
            raise StorageUnavailable("an answer that was lost")

    monkeypatch.setattr(shipping, "LONGEST_LOG", 100_000)
    monkeypatch.setattr(Store, "put", failing)
    known: list[tuple[int, str]] = []
    with closing(opened(path)) as driver, closing(Shipper(path, store, SWEEP, 1)) as shipper:
        for _ in range(60):
            add(driver, draw.randrange(4), draw)
            try:
                shipper.ship()
            except StorageUnavailable:
                if known:
                    restore(store, SWEEP, tmp_path / "restored.db")
                    restored = rows(tmp_path / "restored.db")
                    assert restored[: len(known)] == known
                    assert restored == rows(path)[: len(restored)]
                continue
            known = rows(path)
            restore(store, SWEEP, tmp_path / "restored.db")
            assert rows(tmp_path / "restored.db") == known


def test_a_driver_that_has_lost_its_lease_changes_nothing_by_shipping(path: Path, store: Store, tmp_path: Path) -> None:
    with closing(opened(path)) as old, closing(Shipper(path, store, SWEEP, 1)) as late:
        add(old, 2, random.Random(0))
        late.ship()
        restore(store, SWEEP, tmp_path / "new.db")
        with (
            closing(opened(tmp_path / "new.db")) as new,
            closing(Shipper(tmp_path / "new.db", store, SWEEP, 2)) as heir,
        ):
            add(new, 5, random.Random(1))
            heir.ship()
            add(old, 9, random.Random(2))
            late.ship()
            restore(store, SWEEP, tmp_path / "restored.db")
            assert rows(tmp_path / "restored.db") == rows(tmp_path / "new.db")


def test_a_log_is_shipped_in_segments_and_old_generations_go(
    path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipping, "LONGEST_LOG", 50_000)
    most = 0
    with closing(opened(path)) as driver, closing(Shipper(path, store, SWEEP, 1)) as shipper:
        for _ in range(100):
            add(driver, 1, random.Random(0))
            shipper.ship()
            most = max(most, len(store.keys(SWEEP)))
    assert 3 < most < 20


def test_what_is_missing_or_damaged_is_said(path: Path, store: Store, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no journal of this sweep in"):
        restore(store, SWEEP, tmp_path / "restored.db")
    with closing(Shipper(path, store, SWEEP, 1)) as shipper:
        shipper.ship()
    (key,) = store.keys(SWEEP)
    store.put(key, b"what")
    with pytest.raises(ValueError, match=r"base.gz in .* is damaged"):
        restore(store, SWEEP, tmp_path / "restored.db")
    assert not (tmp_path / "restored.db").exists()


def test_reading_the_log_drops_no_lock_of_sqlite(path: Path) -> None:
    """Closing any descriptor of a file drops all POSIX locks of the process on it; a process that then opens the
    database believes that it is alone, and truncates the index under the others."""
    with closing(opened(path)) as db:
        db.execute("INSERT INTO points (value) VALUES ('x')")
        for _ in range(3):
            shipping.read_log(path)
        index = path.with_name(f"{path.name}-shm")
        assert f":{index.stat().st_ino} " in Path("/proc/locks").read_text()
        index.open("rb").close()
        assert f":{index.stat().st_ino} " not in Path("/proc/locks").read_text(), "as an ordinary look would do"
