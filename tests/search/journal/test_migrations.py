"""A journal that an earlier version wrote opens in this one, with everything in it."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from old_journals import stored, unpack

from search.config.load import parse_sweep
from search.journal.journal import Journal
from search.journal.meta import Meta
from search.journal.outbox import Outbox
from search.journal.schema import MIGRATIONS, SCHEMA, SCHEMA_VERSION
from search.names import Outcome
from vaegan_core.config.trial import parse_trial
from vaegan_core.strict_yaml import parse_yaml


def test_every_past_version_has_a_stored_journal_and_a_way_on() -> None:
    assert sorted(MIGRATIONS) == list(range(4, SCHEMA_VERSION))
    assert [version for version in MIGRATIONS if not stored(version).is_file()] == []


@pytest.mark.parametrize("version", MIGRATIONS)
def test_a_journal_of_an_earlier_version_opens_with_everything_in_it(version: int, tmp_path: Path) -> None:
    path = unpack(version, tmp_path / "journal.db")
    journal = Journal(path)
    trials = journal.trials()
    assert [trial.outcome for trial in trials] == [
        Outcome.DIVERGED,
        Outcome.COMPLETED,
        Outcome.COMPLETED,
        Outcome.RUNNING,
        Outcome.RUNNING,
    ]
    assert [trial.step for trial in trials] == [40, 80, 80, 40, 0]
    assert sorted(journal.evaluations(1)) == [40, 80]
    assert len(journal.attempts(3)) == 1
    assert Outbox(journal).undelivered() == 323
    assert len(Outbox(journal).images_after(0, 100)) == 10
    journal.close()
    assert sqlite3.connect(path).execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)


@pytest.mark.parametrize("version", MIGRATIONS)
def test_an_upgraded_journal_has_the_tables_of_a_new_one(version: int, tmp_path: Path) -> None:
    Journal(unpack(version, tmp_path / "journal.db")).close()
    new = sqlite3.connect(":memory:")
    new.executescript(SCHEMA)

    def columns(db: sqlite3.Connection) -> list[tuple[str, list[tuple[object, ...]]]]:
        names = [row[0] for row in db.execute("SELECT name FROM sqlite_master ORDER BY name")]
        return [(name, db.execute(f"PRAGMA table_xinfo({name})").fetchall()) for name in names]

    assert columns(sqlite3.connect(tmp_path / "journal.db")) == columns(new)


def test_a_directory_that_looks_like_a_number_keeps_its_name(tmp_path: Path) -> None:
    """Version 4 wrote `frames: 1e3`, which its worker read as text and its `rerun` as a number."""
    path = unpack(4, tmp_path / "journal.db")
    [before] = sqlite3.connect(path).execute("SELECT config FROM trials WHERE number = 1").fetchone()
    assert "frames: 1e3\n" in before
    journal = Journal(path)
    assert parse_trial(parse_yaml(journal.trial(1).config)).frames == "1e3"
    assert parse_sweep(parse_yaml(journal.meta(Meta.SWEEP)), "sweep").config.base["frames"] == "1e3"


def test_several_processes_that_open_an_old_journal_upgrade_it_once(tmp_path: Path) -> None:
    path = unpack(4, tmp_path / "journal.db")
    with ThreadPoolExecutor(8) as pool:
        configs = set(pool.map(lambda _: Journal(path).trial(1).config, range(32)))
    assert len(configs) == 1


def test_an_upgrade_that_fails_leaves_the_journal_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = unpack(4, tmp_path / "journal.db")

    def half_way(db: sqlite3.Connection) -> None:
        db.execute("DELETE FROM trials")
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setitem(MIGRATIONS, 4, half_way)
        with pytest.raises(OSError, match="the disk is full"):
            Journal(path)
    assert len(Journal(path).trials()) == 5


@pytest.mark.parametrize(("version", "advice"), [(3, "use an earlier commit"), (SCHEMA_VERSION + 1, "update")])
def test_a_version_without_a_way_on_says_what_to_do(version: int, advice: str, tmp_path: Path) -> None:
    path = unpack(4, tmp_path / "journal.db")
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {version}")
    db.close()
    with pytest.raises(ValueError, match=f"has journal version {version}, .* reads versions 4 to .*{advice}"):
        Journal(path)
