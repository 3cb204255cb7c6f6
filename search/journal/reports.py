"""What trials report: evaluations, curve points, image grids, and verdicts at rungs."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator

from search.journal.database import Database
from search.journal.records import RungRecord
from search.names import UNREPEATABLE_PREFIXES, Outcome
from vaegan_core.evaluation import Evaluation, Point

ROUNDING = 1e-5
"""Relative difference up to which a value that was computed twice counts as the same."""


class Reports(Database):
    """The tables of curve points, evaluations, images and rungs."""

    def add_evaluation(self, trial: int, evaluation: Evaluation, attempt: int = 1) -> None:
        """Stores everything that a report brings, in one transaction.

        What is stored already is kept; where a later attempt computed a different value, that is noted.
        """
        now = time.time()
        with self.transaction() as db:
            if attempt > 1:
                self._note_mismatches(trial, attempt, evaluation)
            self._insert_points(trial, evaluation.points)
            db.executemany(
                "INSERT OR IGNORE INTO images (trial, key, step, png, time) VALUES (?, ?, ?, ?, ?)",
                ((trial, key, evaluation.step, png, int(now * 1000)) for key, png in evaluation.images.items()),
            )
            if evaluation.metrics:
                db.execute(
                    "INSERT OR IGNORE INTO evaluations (trial, step, metrics, time, diagnoses) VALUES (?, ?, ?, ?, ?)",
                    (trial, evaluation.step, json.dumps(evaluation.metrics), now, json.dumps(evaluation.diagnoses)),
                )
            db.execute("UPDATE trials SET step = MAX(step, ?) WHERE number = ?", (evaluation.step, trial))

    def _note_mismatches(self, trial: int, attempt: int, evaluation: Evaluation) -> None:
        steps = [point.step for point in evaluation.points]
        reached = self.db.execute("SELECT step FROM trials WHERE number = ?", (trial,)).fetchone()["step"]
        if not steps or evaluation.step > reached:
            return
        rows = self.db.execute(
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
            self.db.execute(
                "UPDATE attempts SET mismatches = mismatches + ?, mismatch = IIF(mismatch = '', ?, mismatch) "
                "WHERE trial = ? AND attempt = ?",
                (len(differing), differing[0], trial, attempt),
            )

    def add_points(self, trial: int, points: Iterable[Point]) -> None:
        """Stores curve points that are the search's own; what is stored already is kept."""
        with self.transaction():
            self._insert_points(trial, points)

    def _insert_points(self, trial: int, points: Iterable[Point]) -> None:
        self.db.executemany(
            "INSERT OR IGNORE INTO points (trial, key, step, value, time) VALUES (?, ?, ?, ?, ?)",
            ((trial, *point) for point in points),
        )

    def points(self, trial: int) -> list[Point]:
        """Every curve point of a trial, by key and step."""
        rows = self.db.execute("SELECT key, step, value, time FROM points WHERE trial = ? ORDER BY key, step", (trial,))
        return [Point(row["key"], row["step"], row["value"], row["time"]) for row in rows]

    def evaluations(self, trial: int, after: int = -1) -> dict[int, dict[str, float]]:
        """Validation metrics by step, in order; those after a step."""
        rows = self.db.execute(
            "SELECT step, metrics FROM evaluations WHERE trial = ? AND step > ? ORDER BY step", (trial, after)
        )
        return {row["step"]: json.loads(row["metrics"]) for row in rows}

    def evaluation_times(self, trial: int) -> dict[int, int]:
        """Unix time in ms of each evaluation, by step."""
        rows = self.db.execute("SELECT step, time FROM evaluations WHERE trial = ?", (trial,))
        return {row["step"]: int(row["time"] * 1000) for row in rows}

    def num_evaluations(self) -> int:
        return int(self.db.execute("SELECT COUNT(*) FROM evaluations").fetchone()[0])

    def every_evaluation(self) -> Iterator[tuple[int, int, float, dict[str, float]]]:
        """(trial, step, Unix time, validation metrics) of every evaluation, by trial and step."""
        for row in self.db.execute("SELECT trial, step, time, metrics FROM evaluations ORDER BY trial, step"):
            yield row["trial"], row["step"], row["time"], json.loads(row["metrics"])

    def last_metrics(self, trial: int) -> dict[str, float]:
        """Validation metrics of the last evaluation; empty before the first."""
        row = self.db.execute(
            "SELECT metrics FROM evaluations WHERE trial = ? ORDER BY step DESC LIMIT 1", (trial,)
        ).fetchone()
        metrics: dict[str, float] = json.loads(row["metrics"]) if row else {}
        return metrics

    def diagnoses(self, trial: int) -> dict[str, bool | None]:
        """Diagnoses of the last evaluation; empty before the first."""
        row = self.db.execute(
            "SELECT diagnoses FROM evaluations WHERE trial = ? ORDER BY step DESC LIMIT 1", (trial,)
        ).fetchone()
        diagnoses: dict[str, bool | None] = json.loads(row["diagnoses"]) if row else {}
        return diagnoses

    def add_rung(self, record: RungRecord) -> None:
        self.db.execute(
            "INSERT INTO rungs (trial, rung, step, objectives, kept) VALUES (?, ?, ?, ?, ?)",
            (record.trial, record.rung, record.step, json.dumps(record.objectives), int(record.kept)),
        )

    def take_back(self, record: RungRecord) -> None:
        """Lets a trial that was stopped at a rung go on: it runs again."""
        with self.transaction() as db:
            db.execute("UPDATE rungs SET kept = 1 WHERE trial = ? AND rung = ?", (record.trial, record.rung))
            db.execute(
                "UPDATE trials SET outcome = ?, reason = '', ended = NULL, synced = '' "
                "WHERE number = ? AND outcome = ?",
                (Outcome.RUNNING, record.trial, Outcome.PRUNED),
            )

    def rungs(self) -> list[RungRecord]:
        """Every verdict, by rung and trial."""
        return [RungRecord.of(row) for row in self.db.execute("SELECT * FROM rungs ORDER BY rung, trial")]

    def last_rung(self, trial: int) -> int | None:
        """The highest rung at which the trial was judged."""
        row = self.db.execute("SELECT MAX(rung) FROM rungs WHERE trial = ?", (trial,)).fetchone()
        return None if row[0] is None else int(row[0])
