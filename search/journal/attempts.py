"""Attempts at trials: when each began and ended, where it ran, and why it ended."""

from __future__ import annotations

import json
import time

from search.journal.database import Database
from search.journal.records import BEGAN, FAILURES, GPU_SHARE, AttemptRecord, Cause


class Attempts(Database):
    """The table of attempts."""

    def start_attempt(self, trial: int, *, alone: bool = False) -> int:
        """Opens the next attempt at `trial` and returns its number, from 1."""
        with self.transaction() as db:
            row = db.execute("SELECT COALESCE(MAX(attempt), 0) + 1 FROM attempts WHERE trial = ?", (trial,)).fetchone()
            attempt = int(row[0])
            db.execute(
                "INSERT INTO attempts (trial, attempt, started, alone) VALUES (?, ?, ?, ?)",
                (trial, attempt, time.time(), int(alone)),
            )
        return attempt

    def start_trial(
        self, trial: int, attempt: int, config: str, environment: dict[str, str], from_step: int = 0
    ) -> None:
        """Records what the worker said when it began: its configuration, where it runs, and from which step."""
        environment = environment | {BEGAN: str(time.time())}
        with self.transaction() as db:
            db.execute("UPDATE trials SET config = ?, files = files + 1 WHERE number = ?", (config, trial))
            db.execute(
                "UPDATE attempts SET environment = ?, from_step = ? WHERE trial = ? AND attempt = ?",
                (json.dumps(environment), from_step, trial, attempt),
            )

    def end_attempt(self, trial: int, attempt: int, error: str = "", cause: Cause = Cause.NONE) -> None:
        """Closes an attempt; a closed one stays as it is."""
        with self.transaction() as db:
            db.execute(
                "UPDATE attempts SET ended = ?, error = ?, cause = ? WHERE trial = ? AND attempt = ? AND ended IS NULL",
                (time.time(), error, Cause(cause), trial, attempt),
            )
            if error:
                db.execute("UPDATE trials SET files = files + 1 WHERE number = ?", (trial,))

    def close_attempts(self) -> None:
        """Closes every attempt left open by a dead driver, as of its trial's last evaluation."""
        self.db.execute(
            "UPDATE attempts SET cause = ?, ended = MAX(started, COALESCE("
            "(SELECT MAX(time) FROM evaluations WHERE evaluations.trial = attempts.trial), 0)) WHERE ended IS NULL",
            (Cause.STOPPED,),
        )

    def attempts(self, trial: int) -> list[AttemptRecord]:
        """In order, without forgiven ones."""
        rows = self.db.execute("SELECT * FROM attempts WHERE trial = ? AND NOT forgiven ORDER BY attempt", (trial,))
        return [AttemptRecord.of(row) for row in rows]

    def all_attempts(self, trial: int) -> list[AttemptRecord]:
        """In order, including forgiven ones."""
        rows = self.db.execute("SELECT * FROM attempts WHERE trial = ? ORDER BY attempt", (trial,))
        return [AttemptRecord.of(row) for row in rows]

    def failures(self, trial: int) -> list[AttemptRecord]:
        """Attempts that count against the trial, in order."""
        return [attempt for attempt in self.attempts(trial) if attempt.cause in FAILURES]

    def device_failures(self) -> list[tuple[int, dict[str, str]]]:
        """Trial and environment of every attempt that ended by an error of its GPU, without forgiven ones."""
        rows = self.db.execute(
            "SELECT trial, environment FROM attempts WHERE cause = ? AND NOT forgiven", (Cause.DEVICE,)
        )
        return [(row["trial"], json.loads(row["environment"])) for row in rows]

    def num_attempts(self, trial: int) -> int:
        """Number of attempts, including forgiven ones."""
        return int(self.db.execute("SELECT COUNT(*) FROM attempts WHERE trial = ?", (trial,)).fetchone()[0])

    def running_seconds(self) -> float:
        """Time spent in attempts, summed over all trials; running attempts count until now."""
        row = self.db.execute("SELECT SUM(COALESCE(ended, ?) - started) FROM attempts", (time.time(),)).fetchone()
        return float(row[0] or 0.0)

    def gpu_seconds(self, share: float) -> float:
        """GPUs times seconds of every attempt since its worker began; `share` stands for the GPUs of attempts of a
        version before 0.3, which did not note them."""
        row = self.db.execute(
            "SELECT SUM(MAX(0, COALESCE(ended, ?) - COALESCE(CAST(json_extract(environment, ?) AS REAL), started))"
            " * COALESCE(CAST(json_extract(environment, ?) AS REAL), ?)) FROM attempts WHERE environment != '{}'",
            (time.time(), f"$.{BEGAN}", f"$.{GPU_SHARE}", share),
        ).fetchone()
        return float(row[0] or 0.0)

    def environment(self, trial: int, attempt: int | None = None) -> dict[str, str]:
        """Host, device and versions of an attempt, the last one by default; empty before its worker has begun."""
        row = self.db.execute(
            "SELECT environment FROM attempts WHERE trial = ? AND (? IS NULL OR attempt = ?) "
            "ORDER BY attempt DESC LIMIT 1",
            (trial, attempt, attempt),
        ).fetchone()
        environment: dict[str, str] = json.loads(row["environment"]) if row else {}
        return environment

    def beginnings(self) -> dict[int, list[tuple[float, str]]]:
        """When each attempt's worker began (Unix time) and on which host, in order, by trial."""
        rows = self.db.execute(
            "SELECT trial, COALESCE(CAST(json_extract(environment, ?) AS REAL), started) AS began, "
            "json_extract(environment, '$.host') AS host FROM attempts WHERE environment != '{}' "
            "ORDER BY trial, attempt",
            (f"$.{BEGAN}",),
        )
        found: dict[int, list[tuple[float, str]]] = {}
        for row in rows:
            found.setdefault(row["trial"], []).append((row["began"], row["host"] or ""))
        return found

    def has_begun(self, trial: int, attempt: int) -> bool:
        return bool(self.environment(trial, attempt))
