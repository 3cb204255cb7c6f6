"""The sweep's one truth: a SQLite file (WAL) on the driver's disk, from which the Optuna study, the rungs, the MLflow
runs and the live table are derived. Every write is one transaction; a repeated report changes nothing."""

from __future__ import annotations

import json
import math
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from search.journal.meta import POINTS_CURSOR
from search.journal.records import (
    FAILURES,
    AttemptRecord,
    Cause,
    ImageRecord,
    MutationRecord,
    RefusalRecord,
    RungRecord,
    TrialOutcome,
    TrialRecord,
)
from search.journal.schema import SCHEMA, SCHEMA_VERSION
from search.names import UNREPEATABLE_PREFIXES
from vaegan_core.evaluation import Evaluation, Point

ROUNDING = 1e-5
"""Relative difference up to which a value that was computed twice counts as the same."""


_SELECT_TRIALS = (
    "SELECT number, params, config, origin, created, outcome, reason, step, ended, run_id, synced, replicate_of "
    "FROM trials"
)

_SELECT_ATTEMPTS = (
    "SELECT trial, attempt, started, ended, error, cause, alone, from_step, mismatches, mismatch FROM attempts"
)


def _trial_record(row: tuple[Any, ...]) -> TrialRecord:
    return TrialRecord(row[0], json.loads(row[1]), *row[2:])


class Journal:
    """One connection; a thread that reads or writes beside the driver opens its own."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise ValueError(f"no sweep here: {path} does not exist")
        self.path = path
        self._db = sqlite3.connect(path, isolation_level=None, timeout=60)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version != SCHEMA_VERSION:
            self._db.close()
            raise ValueError(f"{path} has journal version {version}, but this vaegan reads version {SCHEMA_VERSION}")

    @classmethod
    def create(cls, path: Path, **meta: str) -> Journal:
        """A new journal, there whole or not at all. Raises FileExistsError where there is one."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=path.parent) as directory:
            temporary = Path(directory) / path.name
            db = sqlite3.connect(temporary, isolation_level=None)
            db.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
            db.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
            db.close()
            os.link(temporary, path)
        return cls(path)

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
        except BaseException:
            if self._db.in_transaction:  # SQLite has rolled back by itself when the disk was full
                self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # --- Meta ---------------------------------------------------------------------------------------------------------

    def meta(self, key: str, default: str | None = None) -> str:
        """A value written with `set_meta` or at creation. Raises KeyError when there is none and no default."""
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        if row is None and default is None:
            raise KeyError(key)
        return str(row[0]) if row is not None else str(default)

    def set_meta(self, key: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    # --- Trials -------------------------------------------------------------------------------------------------------

    def add_trial(
        self, number: int, params: dict[str, Any], config: str, origin: str, replicate_of: int | None = None
    ) -> None:
        self._db.execute(
            "INSERT INTO trials (number, params, config, origin, created, outcome, replicate_of) "
            "VALUES (?, ?, ?, ?, ?, 'running', ?)",
            (number, json.dumps(params), config, origin, time.time(), replicate_of),
        )

    def trials(self, *outcomes: TrialOutcome) -> list[TrialRecord]:
        """All trials, or those of some outcomes, in order of number."""
        where = f" WHERE outcome IN ({', '.join('?' * len(outcomes))})" if outcomes else ""
        return [_trial_record(row) for row in self._db.execute(f"{_SELECT_TRIALS}{where} ORDER BY number", outcomes)]

    def counts(self) -> dict[str, int]:
        """Trials by outcome, replicates among them."""
        return dict(self._db.execute("SELECT outcome, COUNT(*) FROM trials GROUP BY outcome").fetchall())

    def recent(self, limit: int) -> list[TrialRecord]:
        """Those that run, then those that ended last."""
        rows = self._db.execute(f"{_SELECT_TRIALS} ORDER BY outcome != 'running', ended DESC, number LIMIT ?", (limit,))
        return [_trial_record(row) for row in rows]

    def best(self, metric: str) -> tuple[int, float] | None:
        """(trial, value) of the completed trial with the smallest value of a validation metric."""
        row = self._db.execute(
            "SELECT t.number, json_extract(e.metrics, ?) AS value FROM trials t "
            "JOIN evaluations e ON e.trial = t.number AND e.step = t.step "
            "WHERE t.outcome = 'completed' AND value IS NOT NULL ORDER BY value LIMIT 1",
            (f'$."{metric}"',),
        ).fetchone()
        return (int(row[0]), float(row[1])) if row else None

    def num_drawn(self) -> int:
        """Trials that count against the budget: all but replicates."""
        return int(self._db.execute("SELECT COUNT(*) FROM trials WHERE replicate_of IS NULL").fetchone()[0])

    def next_number(self) -> int:
        return int(self._db.execute("SELECT COALESCE(MAX(number), -1) + 1 FROM trials").fetchone()[0])

    def steps(self, *outcomes: TrialOutcome) -> tuple[int, int]:
        """(number of trials, sum of their steps) of some outcomes, or of all."""
        where = f" WHERE outcome IN ({', '.join('?' * len(outcomes))})" if outcomes else ""
        row = self._db.execute(f"SELECT COUNT(*), COALESCE(SUM(step), 0) FROM trials{where}", outcomes).fetchone()
        return int(row[0]), int(row[1])

    def trial(self, number: int) -> TrialRecord:
        return _trial_record(self._db.execute(f"{_SELECT_TRIALS} WHERE number = ?", (number,)).fetchone())

    def outcome(self, trial: int) -> TrialOutcome:
        outcome: TrialOutcome = self._db.execute("SELECT outcome FROM trials WHERE number = ?", (trial,)).fetchone()[0]
        return outcome

    def end_trial(self, trial: int, outcome: TrialOutcome, reason: str = "") -> None:
        """Records how a trial ended; an outcome that is final stays as it is."""
        self._db.execute(
            "UPDATE trials SET outcome = ?, reason = ?, ended = ? "
            "WHERE number = ? AND outcome NOT IN ('completed', 'pruned', 'diverged', 'failed')",
            (outcome, reason, time.time(), trial),
        )

    def reopen_trial(self, trial: int) -> None:
        """An interrupted trial runs again."""
        self._db.execute(
            "UPDATE trials SET outcome = 'running', reason = '', ended = NULL "
            "WHERE number = ? AND outcome = 'interrupted'",
            (trial,),
        )

    def forgive_failed(self) -> list[int]:
        """Makes every failed trial interrupted, its failures no longer counted; returns their numbers."""
        with self._transaction() as db:
            numbers = [row[0] for row in db.execute("SELECT number FROM trials WHERE outcome = 'failed'")]
            db.execute("UPDATE trials SET outcome = 'interrupted', reason = 'to be retried' WHERE outcome = 'failed'")
            db.executemany("UPDATE attempts SET forgiven = 1 WHERE trial = ?", ((number,) for number in numbers))
        return numbers

    def mutate_trial(self, record: MutationRecord, config: str) -> None:
        """The trial goes on with other parameters from another trial's state."""
        with self._transaction() as db:
            db.execute(
                "INSERT INTO mutations VALUES (?, ?, ?, ?)",
                (record.trial, record.step, record.donor, json.dumps(record.params)),
            )
            db.execute("UPDATE trials SET config = ?, files = files + 1 WHERE number = ?", (config, record.trial))

    def mutations(self, trial: int) -> list[MutationRecord]:
        rows = self._db.execute("SELECT step, donor, params FROM mutations WHERE trial = ? ORDER BY step", (trial,))
        return [MutationRecord(trial, step, donor, json.loads(params)) for step, donor, params in rows]

    # --- Attempts -----------------------------------------------------------------------------------------------------

    def start_attempt(self, trial: int, *, alone: bool = False) -> int:
        """Opens the next attempt at `trial` and returns its number, from 1."""
        with self._transaction() as db:
            row = db.execute("SELECT COALESCE(MAX(attempt), 0) + 1 FROM attempts WHERE trial = ?", (trial,)).fetchone()
            db.execute(
                "INSERT INTO attempts (trial, attempt, started, alone) VALUES (?, ?, ?, ?)",
                (trial, row[0], time.time(), int(alone)),
            )
        return int(row[0])

    def start_trial(
        self, trial: int, attempt: int, config: str, environment: dict[str, str], from_step: int = 0
    ) -> None:
        """What the worker said when it began: its resolved configuration, where it runs, and from which step."""
        with self._transaction() as db:
            db.execute("UPDATE trials SET config = ?, files = files + 1 WHERE number = ?", (config, trial))
            db.execute(
                "UPDATE attempts SET environment = ?, from_step = ? WHERE trial = ? AND attempt = ?",
                (json.dumps(environment), from_step, trial, attempt),
            )

    def end_attempt(self, trial: int, attempt: int, error: str = "", cause: Cause | Literal[""] = "") -> None:
        """Closes an attempt; one that is closed stays as it is."""
        with self._transaction() as db:
            db.execute(
                "UPDATE attempts SET ended = ?, error = ?, cause = ? WHERE trial = ? AND attempt = ? AND ended IS NULL",
                (time.time(), error, cause, trial, attempt),
            )
            if error:
                db.execute("UPDATE trials SET files = files + 1 WHERE number = ?", (trial,))

    def close_attempts(self) -> None:
        """Of a driver that has gone: none of its attempts runs any more, since the last sign of life at the latest."""
        self._db.execute(
            "UPDATE attempts SET cause = 'stopped', ended = MAX(started, COALESCE("
            "(SELECT MAX(time) FROM evaluations WHERE evaluations.trial = attempts.trial), 0)) WHERE ended IS NULL"
        )

    def attempts(self, trial: int) -> list[AttemptRecord]:
        """In order; without those whose failure a person has forgiven."""
        rows = self._db.execute(f"{_SELECT_ATTEMPTS} WHERE trial = ? AND NOT forgiven ORDER BY attempt", (trial,))
        return [AttemptRecord(*row) for row in rows]

    def all_attempts(self, trial: int) -> list[AttemptRecord]:
        """In order; the forgiven among them."""
        rows = self._db.execute(f"{_SELECT_ATTEMPTS} WHERE trial = ? ORDER BY attempt", (trial,))
        return [AttemptRecord(*row) for row in rows]

    def failures(self, trial: int) -> list[AttemptRecord]:
        """Attempts that count against the trial, in order."""
        return [attempt for attempt in self.attempts(trial) if attempt.cause in FAILURES]

    def num_attempts(self, trial: int) -> int:
        """Of all times, the forgiven among them."""
        return int(self._db.execute("SELECT COUNT(*) FROM attempts WHERE trial = ?", (trial,)).fetchone()[0])

    def running_seconds(self) -> float:
        """Time that attempts have taken, added up over all trials, with what those that run have taken until now."""
        row = self._db.execute("SELECT SUM(COALESCE(ended, ?) - started) FROM attempts", (time.time(),)).fetchone()
        return float(row[0] or 0.0)

    def environment(self, trial: int, attempt: int | None = None) -> dict[str, str]:
        """Of an attempt, the last one by default; empty before its worker has begun."""
        row = self._db.execute(
            "SELECT environment FROM attempts WHERE trial = ? AND (? IS NULL OR attempt = ?) "
            "ORDER BY attempt DESC LIMIT 1",
            (trial, attempt, attempt),
        ).fetchone()
        environment: dict[str, str] = json.loads(row[0]) if row else {}
        return environment

    def has_begun(self, trial: int, attempt: int) -> bool:
        return bool(self.environment(trial, attempt))

    # --- Evaluations --------------------------------------------------------------------------------------------------

    def add_evaluation(self, trial: int, evaluation: Evaluation, attempt: int = 1) -> None:
        """Everything a report brings, in one transaction. What is there already stays as it is; where an attempt
        computed something again with another value, that is noted."""
        now = time.time()
        with self._transaction() as db:
            if attempt > 1:
                self._note_mismatches(trial, attempt, evaluation)
            db.executemany(
                "INSERT OR IGNORE INTO points (trial, key, step, value, time) VALUES (?, ?, ?, ?, ?)",
                ((trial, *point) for point in evaluation.points),
            )
            db.executemany(
                "INSERT OR IGNORE INTO images (trial, key, step, png, time) VALUES (?, ?, ?, ?, ?)",
                ((trial, key, evaluation.step, png, int(now * 1000)) for key, png in evaluation.images.items()),
            )
            if evaluation.metrics:
                db.execute(
                    "INSERT OR IGNORE INTO evaluations VALUES (?, ?, ?, ?, ?)",
                    (trial, evaluation.step, json.dumps(evaluation.metrics), now, json.dumps(evaluation.diagnoses)),
                )
            db.execute("UPDATE trials SET step = MAX(step, ?) WHERE number = ?", (evaluation.step, trial))

    def _note_mismatches(self, trial: int, attempt: int, evaluation: Evaluation) -> None:
        steps = [point.step for point in evaluation.points]
        if not steps or evaluation.step > self.trial(trial).step:
            return
        rows = self._db.execute(
            "SELECT key, step, value FROM points WHERE trial = ? AND step BETWEEN ? AND ?",
            (trial, min(steps), max(steps)),
        )
        before = {(key, step): value for key, step, value in rows if not key.startswith(UNREPEATABLE_PREFIXES)}
        differing = [
            f"{point.key} at step {point.step}: {before[point.key, point.step]:.9g}, then {point.value:.9g}"
            for point in evaluation.points
            if (point.key, point.step) in before
            and not math.isclose(before[point.key, point.step], point.value, rel_tol=ROUNDING, abs_tol=1e-12)
        ]
        if differing:
            self._db.execute(
                "UPDATE attempts SET mismatches = mismatches + ?, mismatch = IIF(mismatch = '', ?, mismatch) "
                "WHERE trial = ? AND attempt = ?",
                (len(differing), differing[0], trial, attempt),
            )

    def add_points(self, trial: int, points: Iterable[Point]) -> None:
        """Points of the search's own; what is there already stays as it is."""
        with self._transaction() as db:
            db.executemany(
                "INSERT OR IGNORE INTO points (trial, key, step, value, time) VALUES (?, ?, ?, ?, ?)",
                ((trial, *point) for point in points),
            )

    def evaluations(self, trial: int) -> dict[int, dict[str, float]]:
        """Validation metrics by step, in order."""
        rows = self._db.execute("SELECT step, metrics FROM evaluations WHERE trial = ? ORDER BY step", (trial,))
        return {step: json.loads(metrics) for step, metrics in rows}

    def last_metrics(self, trial: int) -> dict[str, float]:
        """Of its last evaluation; empty before the first."""
        row = self._db.execute(
            "SELECT metrics FROM evaluations WHERE trial = ? ORDER BY step DESC LIMIT 1", (trial,)
        ).fetchone()
        metrics: dict[str, float] = json.loads(row[0]) if row else {}
        return metrics

    def diagnoses(self, trial: int) -> dict[str, bool | None]:
        """Of its last evaluation; empty before the first."""
        row = self._db.execute(
            "SELECT diagnoses FROM evaluations WHERE trial = ? ORDER BY step DESC LIMIT 1", (trial,)
        ).fetchone()
        diagnoses: dict[str, bool | None] = json.loads(row[0]) if row else {}
        return diagnoses

    def points_after(self, cursor: int, limit: int) -> list[tuple[int, int, Point]]:
        """(id, trial, point) of points with a greater id than `cursor`, in order of id."""
        rows = self._db.execute(
            "SELECT id, trial, key, step, value, time FROM points WHERE id > ? ORDER BY id LIMIT ?", (cursor, limit)
        )
        return [(row[0], row[1], Point(*row[2:])) for row in rows]

    def point(self, id: int) -> Point:
        row = self._db.execute("SELECT key, step, value, time FROM points WHERE id = ?", (id,)).fetchone()
        return Point(*row)

    def points(self, trial: int) -> list[Point]:
        rows = self._db.execute(
            "SELECT key, step, value, time FROM points WHERE trial = ? ORDER BY key, step", (trial,)
        )
        return [Point(*row) for row in rows]

    def images_after(self, cursor: int, limit: int) -> list[ImageRecord]:
        """Those with a greater id than `cursor` that MLflow lacks, in order of id."""
        rows = self._db.execute(
            "SELECT id, trial, key, step, png, time FROM images WHERE id > ? AND png IS NOT NULL ORDER BY id LIMIT ?",
            (cursor, limit),
        )
        return [ImageRecord(*row) for row in rows]

    def image(self, id: int) -> ImageRecord:
        row = self._db.execute("SELECT id, trial, key, step, png, time FROM images WHERE id = ?", (id,)).fetchone()
        return ImageRecord(*row)

    def discard_image(self, id: int) -> None:
        """Frees the room of an image that MLflow has."""
        with self._transaction() as db:
            db.execute("UPDATE images SET png = NULL WHERE id = ?", (id,))
            db.execute("DELETE FROM set_aside WHERE kind = 'image' AND ref = ?", (id,))

    # --- Rungs --------------------------------------------------------------------------------------------------------

    def add_rung(self, record: RungRecord) -> None:
        self._db.execute(
            "INSERT INTO rungs VALUES (?, ?, ?, ?, ?)",
            (record.trial, record.rung, record.step, json.dumps(record.objectives), int(record.kept)),
        )

    def rungs(self) -> list[RungRecord]:
        rows = self._db.execute("SELECT trial, rung, step, objectives, kept FROM rungs ORDER BY rung, trial")
        return [
            RungRecord(t, rung, step, tuple(json.loads(objectives)), bool(kept))
            for t, rung, step, objectives, kept in rows
        ]

    def last_rung(self, trial: int) -> int | None:
        """The highest that the trial was judged at."""
        row = self._db.execute("SELECT MAX(rung) FROM rungs WHERE trial = ?", (trial,)).fetchone()
        return None if row[0] is None else int(row[0])

    # --- What MLflow has been told ------------------------------------------------------------------------------------

    def out_of_step(self) -> list[TrialRecord]:
        """Trials without a run, or with another outcome than MLflow has been told, in order of number."""
        rows = self._db.execute(f"{_SELECT_TRIALS} WHERE synced != outcome OR run_id IS NULL ORDER BY number")
        return [_trial_record(row) for row in rows]

    def undelivered(self) -> int:
        """Curve points that MLflow lacks, but those it refused."""
        last = self._db.execute("SELECT COALESCE(MAX(id), 0) FROM points").fetchone()[0]
        return int(last) - int(self.meta(POINTS_CURSOR, "0"))

    def set_aside(self, records: Iterable[RefusalRecord]) -> None:
        with self._transaction() as db:
            db.executemany(
                "INSERT OR REPLACE INTO set_aside VALUES (?, ?, ?, ?, ?)",
                ((each.trial, each.kind, each.ref, each.what, each.reason) for each in records),
            )

    def refused(self) -> list[RefusalRecord]:
        """What MLflow refused to take and has not taken since."""
        rows = self._db.execute("SELECT trial, kind, ref, what, reason FROM set_aside ORDER BY trial, kind, ref")
        return [RefusalRecord(*row) for row in rows]

    def accepted(self, records: Iterable[RefusalRecord]) -> None:
        """They were taken after all."""
        with self._transaction() as db:
            db.executemany(
                "DELETE FROM set_aside WHERE trial = ? AND kind = ? AND ref = ?",
                ((each.trial, each.kind, each.ref) for each in records),
            )

    def changed_files(self) -> list[tuple[TrialRecord, int]]:
        """Trials with a run whose configuration or error MLflow lacks, and the version of what it lacks."""
        rows = self._db.execute(
            "SELECT number, files FROM trials WHERE files != files_sent AND run_id IS NOT NULL ORDER BY number"
        ).fetchall()
        return [(self.trial(number), version) for number, version in rows]

    def set_files_sent(self, trial: int, version: int) -> None:
        self._db.execute("UPDATE trials SET files_sent = ? WHERE number = ?", (version, trial))

    def resend(self, trial: int) -> None:
        """MLflow is to be told all of a trial again but points, images and weights."""
        self._db.execute("UPDATE trials SET synced = '', files = files + 1 WHERE number = ?", (trial,))

    def set_run_id(self, trial: int, run_id: str) -> None:
        self._db.execute("UPDATE trials SET run_id = ? WHERE number = ?", (run_id, trial))

    def set_synced(self, trial: int, outcome: str) -> None:
        self._db.execute("UPDATE trials SET synced = ? WHERE number = ?", (outcome, trial))
