"""The tables of a journal, and how a journal of an earlier version becomes one of this version."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable

import yaml

from vaegan_core.strict_yaml import dump_yaml

SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE trials (
    number INTEGER PRIMARY KEY,
    params TEXT NOT NULL,            -- JSON: swept parameters by dotted name
    config TEXT NOT NULL,            -- YAML; `auto` where the machine of an attempt decides
    origin TEXT NOT NULL,            -- what proposed it
    created REAL NOT NULL,
    outcome TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    step INTEGER NOT NULL DEFAULT 0, -- of the last evaluation
    ended REAL,
    run_id TEXT,                     -- MLflow's
    synced TEXT NOT NULL DEFAULT '', -- outcome that MLflow has been sent
    replicate_of INTEGER,            -- the trial that this one repeats with another seed, to confirm it
    files INTEGER NOT NULL DEFAULT 1,      -- counts changes of configuration and error
    files_sent INTEGER NOT NULL DEFAULT 0, -- the count that MLflow has been sent
    block TEXT                       -- JSON: which trial of which block it is, where it answers questions
);
CREATE INDEX trials_by_outcome ON trials (outcome);
CREATE INDEX trials_out_of_step ON trials (number) WHERE synced != outcome OR run_id IS NULL;
CREATE INDEX trials_with_changed_files ON trials (number) WHERE files != files_sent;
CREATE TABLE attempts (
    trial INTEGER NOT NULL, attempt INTEGER NOT NULL, started REAL NOT NULL, ended REAL,
    environment TEXT NOT NULL DEFAULT '{}',   -- JSON: host, device, what the machine decided, versions
    error TEXT NOT NULL DEFAULT '',
    cause TEXT NOT NULL DEFAULT '',           -- why it ended, where that was no verdict on the trial
    alone INTEGER NOT NULL DEFAULT 0,         -- had a whole GPU
    forgiven INTEGER NOT NULL DEFAULT 0,      -- somebody asked to retry failed trials
    from_step INTEGER NOT NULL DEFAULT 0,     -- step of the checkpoint it continued from
    mismatches INTEGER NOT NULL DEFAULT 0,    -- points that an earlier attempt had computed with another value
    mismatch TEXT NOT NULL DEFAULT '',        -- the first mismatch, in words
    PRIMARY KEY (trial, attempt)
) WITHOUT ROWID;
CREATE TABLE mutations (             -- changes by population based training
    trial INTEGER NOT NULL, step INTEGER NOT NULL, donor INTEGER NOT NULL,
    params TEXT NOT NULL,            -- JSON: all swept parameters from this step on
    PRIMARY KEY (trial, step)
) WITHOUT ROWID;
CREATE TABLE points (
    id INTEGER PRIMARY KEY, trial INTEGER NOT NULL, key TEXT NOT NULL, step INTEGER NOT NULL, value REAL NOT NULL,
    time INTEGER NOT NULL, UNIQUE (trial, key, step)
);
CREATE TABLE evaluations (
    trial INTEGER NOT NULL, step INTEGER NOT NULL, metrics TEXT NOT NULL, time REAL NOT NULL,
    diagnoses TEXT NOT NULL,         -- JSON: true, false or null by name
    PRIMARY KEY (trial, step)
) WITHOUT ROWID;
CREATE TABLE images (
    id INTEGER PRIMARY KEY, trial INTEGER NOT NULL, key TEXT NOT NULL, step INTEGER NOT NULL,
    png BLOB,                        -- NULL once MLflow has it
    time INTEGER NOT NULL, UNIQUE (trial, key, step)
);
CREATE TABLE set_aside (             -- what MLflow rejected
    trial INTEGER NOT NULL, kind TEXT NOT NULL,
    ref INTEGER NOT NULL,            -- id of a point or an image, else 0
    what TEXT NOT NULL, reason TEXT NOT NULL,
    PRIMARY KEY (trial, kind, ref)
) WITHOUT ROWID;
CREATE TABLE saved (                 -- files of trials that are kept: what they may go on from, and their weights
    trial INTEGER NOT NULL, attempt INTEGER NOT NULL, step INTEGER NOT NULL,
    kind TEXT NOT NULL,              -- state or model
    key TEXT NOT NULL,               -- where it lies in the sweep's storage
    sha256 TEXT NOT NULL,
    given INTEGER NOT NULL DEFAULT 0, -- population based training may give this state to others
    PRIMARY KEY (trial, kind, step, attempt)
) WITHOUT ROWID;
CREATE TABLE rungs (
    trial INTEGER NOT NULL, rung INTEGER NOT NULL, step INTEGER NOT NULL,
    objectives TEXT NOT NULL, kept INTEGER NOT NULL,
    PRIMARY KEY (trial, rung)
) WITHOUT ROWID;
"""


def _one_yaml_dialect(db: sqlite3.Connection) -> None:
    """4 -> 5: YAML was written in YAML 1.1 and partly read as YAML 1.2, where a plain 1e3 is a number."""

    def rewritten(text: str) -> str:
        return dump_yaml(yaml.safe_load(text))

    sweep = db.execute("SELECT value FROM meta WHERE key = 'sweep'").fetchone()
    if sweep is not None:
        db.execute("UPDATE meta SET value = ? WHERE key = 'sweep'", (rewritten(sweep[0]),))
    for number, config in db.execute("SELECT number, config FROM trials").fetchall():
        db.execute("UPDATE trials SET config = ? WHERE number = ?", (rewritten(config), number))


def _files_by_attempt(db: sqlite3.Connection) -> None:
    """5 -> 6: the files of trials have a table; those that lie there already are found when the sweep goes on."""
    db.execute(re.search(r"CREATE TABLE saved \(.*?WITHOUT ROWID", SCHEMA, re.DOTALL).group())  # type: ignore[union-attr]


def _blocks(db: sqlite3.Connection) -> None:
    """6 -> 7: trials may belong to blocks, which answer questions."""
    db.execute("ALTER TABLE trials ADD COLUMN block TEXT")


MIGRATIONS: dict[int, Callable[[sqlite3.Connection], None]] = {4: _one_yaml_dialect, 5: _files_by_attempt, 6: _blocks}
"""By the version that each brings to the next one."""
SCHEMA_VERSION = max(MIGRATIONS) + 1
